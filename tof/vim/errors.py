"""What a VIM can answer instead of doing what it was asked.

VimError
├── AuthFailed     who we are is not believed, or not enough
├── QuotaExceeded  no more for this tenant
├── AlreadyExists  the key is somebody else's, or another app's
├── Rejected       the request makes no sense to it: an image, flavour or network that it does not know
├── NoCapacity     no host can take it
├── BackendFault   it tried, and failed
├── TimedOut       it did not answer, or not come up, in time: what it did is not known until it is asked
└── Unavailable    it cannot be reached
"""

from __future__ import annotations

from typing import ClassVar

from tof.errors import BackendError


class VimError(BackendError):
    """What the VIM said, and what to do about it."""

    hint: ClassVar[str] = ""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = hint or self.hint


class AuthFailed(VimError):
    """401 or 403 for want of rights."""

    hint = "check the credentials in the VIM's section of the configuration"


class QuotaExceeded(VimError):
    """A limit of the tenant's."""

    hint = "delete apps, or have the quota raised"


class AlreadyExists(VimError):
    """The key is taken by something that the TOF did not make so."""

    hint = "delete the app of that name first"


class Rejected(VimError):
    """The request cannot be granted, however often it is made."""

    hint = "correct the app's description"


class NoCapacity(VimError):
    """Nothing has room for it."""

    hint = "ask for less, or delete apps"


class BackendFault(VimError):
    """Something broke on the way."""

    hint = "see the log of the agent and of the VIM, and try again"


class TimedOut(VimError):
    """The deadline passed."""

    hint = "see whether the VIM is overloaded, and try again"


class Unavailable(VimError):
    """It cannot be asked at all."""

    hint = "see whether the VIM runs and can be reached from here"
