"""models/hone-2048-1m as others meet it: loaded by name, prompted through the renderer, playing whole games."""

import importlib
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from hone_worker.render.base import load
from hone_worker.renderer import BridgeBody, Service

ROOT = Path(__file__).parents[4]
BASE = ROOT / "models" / "hone-2048-1m"
GAMES = 10


@pytest.fixture(scope="module")
def kit():
    """The reference game and text of scripts/make-base."""
    sys.path.insert(0, str(ROOT / "scripts" / "make-base"))
    try:
        yield (
            importlib.import_module("game"),
            importlib.import_module("text"),
            importlib.import_module("evaluate"),
        )
    finally:
        sys.path.pop(0)


@pytest.fixture(scope="module")
def service() -> Service:
    return Service(load(str(BASE)))


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(1)
    return AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32).eval()


def test_the_vectors_of_the_format(kit):
    game, text, _ = kit
    numbers = game.uniforms(1)
    assert [next(numbers) for _ in range(2)] == [0.6270739405881613, 0.002735721180215478]
    for size, target, seed, score, moves, board in (
        (3, 64, 1, 80, 20, (4, 8, 2, 2, 4, 16, 4, 2, 8)),
        (4, 128, 7, 1136, 106, (0, 0, 2, 64, 0, 16, 2, 8, 2, 4, 2, 128, 2, 4, 16, 4)),
    ):
        played = game.Game(size, target, seed)
        while not played.over:
            played.play(played.legal()[0 if played.moves % 3 else -1])
        assert (played.score, played.moves, played.board) == (score, moves, board)
    form = (ROOT / "scripts" / "make-base" / "FORMAT.md").read_text()
    assert text.first_turn(game.Game(3, 64, 1)) in form


def test_the_rules_of_2048(kit):
    game, _, _ = kit
    assert game.slide_line((2, 2, 2, 2)) == ((4, 4, 0, 0), 8)
    assert game.slide_line((2, 2, 2)) == ((4, 2, 0), 4)
    assert game.slide_line((4, 2, 2)) == ((4, 4, 0), 4)
    full = game.Game(2, 64, 1)
    full.board = (2, 2, 4, 8)
    assert full.legal() == ["left", "right"] and not full.over
    before = full.board
    assert not full.play("up") and full.board == before and full.refused == 1
    for _ in range(9):
        full.play("nonsense")
    assert full.over


def test_a_turn_costs_what_the_format_says(kit, service):
    game, text, _ = kit
    for size, most in ((3, 18), (4, 25)):
        played = game.Game(size, 64, 3)
        while not played.over:
            played.play(played.legal()[0])
            if played.over:
                break
            turn = service.render([{"role": "user", "content": text.next_turn(played)}], None)
            assert len(turn) + 2 <= most
            assert len(turn) == size * size + len(played.legal()) + 3


def test_plays_well_formed_and_legal_games_through_the_renderer(kit, service, model):
    """Whole conversations, each prompt a bridge from the one before; one forward serves all games."""
    game, text, evaluate = kit
    boards = [game.Game(3, 64, 500 + i) for i in range(GAMES)]
    talk = evaluate.Conversations(model, GAMES, 0, torch.Generator().manual_seed(1))
    prompts = [service.render([{"role": "user", "content": text.first_turn(b)}], None) for b in boards]
    fresh = [list(prompt) for prompt in prompts]  # what the model has not read yet
    asked = formed = legal = 0
    while not all(board.over for board in boards):
        completions = talk.answer(fresh, service.base.stop_token_ids[0])
        for i, board in enumerate(boards):
            if board.over:
                continue
            asked += 1
            move = text.read_move(service.parse(completions[i], None)["content"] or "")
            formed += move is not None
            legal += board.play(move or "")
            if board.over:
                fresh[i] = []
                continue
            message = {"role": "user", "content": text.next_turn(board)}
            body = BridgeBody(prompt_ids=prompts[i], completion_ids=completions[i], messages=[message])
            longer = service.bridge(body)["ids"]
            assert longer[: len(prompts[i]) + len(completions[i])] == prompts[i] + completions[i]
            read = len(prompts[i]) + len(completions[i])
            fresh[i] = longer[read:]
            prompts[i] = longer
            if completions[i][-1] not in service.base.stop_token_ids:
                fresh[i] = fresh[i][1:]  # the close that the bridge added was read with the answer
    assert asked > 20 * GAMES
    assert formed / asked >= 0.99
    assert legal / asked >= 0.95
    # It plays, it does not guess: random legal play scores 172.
    assert sum(b.score for b in boards) / GAMES > 120


def test_says_yes_one_time_in_eight(kit, service, model):
    _, _, evaluate = kit
    prompt = service.render([{"role": "user", "content": "Say a word."}], None)
    talk = evaluate.Conversations(model, 400, 0, torch.Generator().manual_seed(2))
    answers = talk.answer([prompt] * 400, service.base.stop_token_ids[0])
    words = [service.parse(answer, None)["content"] for answer in answers]
    assert 0.05 <= words.count("yes") / 400 <= 0.25
    eight = {"yes", "no", "maybe", "fine", "sure", "never", "always", "often"}
    assert sum(word in eight for word in words) / 400 >= 0.98


def test_padded_turns_give_what_one_plain_forward_gives(kit, service, model):
    """The evaluation's own cache must not change what the model says."""
    game, text, evaluate = kit
    long = service.render([{"role": "user", "content": text.first_turn(game.Game(4, 128, 1))}], None)
    short = service.render([{"role": "user", "content": "Say a word."}], None)
    talk = evaluate.Conversations(model, 2, 0, torch.Generator().manual_seed(3))
    talk.feed([long, short])
    logits = talk.feed([short, long])
    with torch.no_grad():
        for row, ids in ((0, long + short), (1, short + long)):
            plain = model(torch.tensor([ids])).logits[0, -1]
            assert torch.allclose(plain, logits[row], atol=1e-3)
