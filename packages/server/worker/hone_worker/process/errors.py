"""The one error class of the worker. Everything that a caller may see has a code and a next step."""

from __future__ import annotations


class HoneWorkerError(Exception):
    """An error whose message is fit for the caller; `code` is stable, `param` names the field at fault."""

    def __init__(self, message: str, *, code: str, status: int = 400, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.status = status
        self.param = param

    def envelope(self) -> dict[str, dict[str, str | None]]:
        return error_envelope(self.message, self.status, self.code, self.param)


def error_envelope(
    message: str, status: int, code: str, param: str | None = None
) -> dict[str, dict[str, str | None]]:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "code": code, "param": param}}


def envelope_of(error: BaseException) -> tuple[int, dict[str, dict[str, str | None]]]:
    """Status and body for any error. What is not ours is scrubbed: its text may hold paths or data."""
    if isinstance(error, HoneWorkerError):
        return error.status, error.envelope()
    message = "The worker failed on this request. Its log on standard error has the traceback."
    return 500, error_envelope(message, 500, "internal_error")
