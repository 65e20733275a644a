"""vLLM's server, whose whole process group ends when the process that started it does, however that one ended.

Standard input is a pipe that only the starter holds. vLLM would not notice: it drains open streams on
SIGTERM, and its workers outlive a server that was killed. So a process of its own waits for the end of
the pipe, kills the group, and removes the run's temporary folder (TMPDIR).
"""

import os
import runpy
import shutil
import signal


def end_with_starter() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while os.read(0, 64):
        pass
    remove_folder_after_this_process()
    os.killpg(os.getpgrp(), signal.SIGKILL)


def remove_folder_after_this_process() -> None:
    """In a group of its own, so that it outlives this one, which ends last of those that write there."""
    alive, held = os.pipe()
    remover = os.fork()
    if remover != 0:
        # Here, not in the child: the group may be killed before the child runs at all.
        os.setpgid(remover, remover)
        return
    os.close(held)
    os.read(alive, 1)
    shutil.rmtree(os.environ["TMPDIR"], ignore_errors=True)
    os._exit(0)


# Before vLLM is imported: what it starts must not be copied.
if os.fork() == 0:
    end_with_starter()
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)

# The `vllm` command of the CPU build looks for a distribution of another name; the module works for both.
runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__", alter_sys=True)
