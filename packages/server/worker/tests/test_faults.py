from __future__ import annotations

import pytest

from hone_worker.process.errors import HoneWorkerError
from hone_worker.process.faults import arm


def test_a_point_that_is_not_named_does_nothing(tmp_path):
    mark = tmp_path / "mark"
    for spec in ("", "checkpoint.before-rename:kill", "worker.load:kill"):
        arm(spec, str(mark))("worker.forward")
    assert not mark.exists()


def test_it_strikes_at_the_passing_that_is_named_and_once_also_in_a_successor(tmp_path):
    mark = tmp_path / "mark"
    fault = arm("worker.file-half@2:enospc", str(mark))
    fault("worker.file-half")
    assert not mark.exists()
    with pytest.raises(OSError, match="No space left"):
        fault("worker.file-half")
    fault("worker.file-half")
    arm("worker.file-half:enospc", str(mark))("worker.file-half")


@pytest.mark.parametrize("spec", ["worker.load", "worker.nowhere:kill", "worker.load:explode"])
def test_what_names_no_point_is_refused(spec):
    with pytest.raises(HoneWorkerError) as caught:
        arm(spec, "")
    assert caught.value.code == "invalid_config"
