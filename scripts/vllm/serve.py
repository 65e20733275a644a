"""vLLM's server, which ends when the process that started it does, however that one ended."""

import ctypes
import os
import runpy
import signal
import sys

PR_SET_PDEATHSIG = 1

if sys.platform == "linux":
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(os.environ.pop("HONE_PARENT_PID")):
        sys.exit("the process that started vLLM is gone")

# The `vllm` command of the CPU build looks for a distribution of another name; the module works for both.
runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__", alter_sys=True)
