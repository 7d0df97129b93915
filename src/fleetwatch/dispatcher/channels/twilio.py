"""Text messages through Twilio's API, which takes one request for each recipient.

Recipients are independent: one that Twilio refuses for good (a wrong number, somebody who unsubscribed) does
not cost the others their message, and who has it already does not get it again when the rest is retried. That
is remembered in memory only. So after a restart in the middle of such a retry, or when another dispatcher
takes it over, somebody may get a message twice, as with every channel: at least once.
"""

from __future__ import annotations

import base64
import logging
import time
from collections import OrderedDict
from threading import Lock
from typing import ClassVar
from urllib.parse import urlencode

from fleetwatch.alerting.channels import TwilioSettings
from fleetwatch.dispatcher.channels import ATTEMPT, DeliveryError, Message
from fleetwatch.dispatcher.channels.http import Answer, Client

log = logging.getLogger(__name__)

_CREATED = 201
_OF_THE_ACCOUNT = (401, 403, 404, 429)  # statuses that the next recipient would get as well
_REMEMBERED = 1000  # messages of which it is known who has them already


class Twilio:
    """Sends one text message to each recipient."""

    templates: ClassVar[tuple[str, ...]] = ("sms.txt",)

    def __init__(self, settings: TwilioSettings, auth_token: str) -> None:
        """Set account, sender and recipients."""
        credentials = base64.b64encode(f"{settings.account_sid}:{auth_token}".encode()).decode()
        self._settings = settings
        self._url = f"{settings.host}/2010-04-01/Accounts/{settings.account_sid}/Messages.json"
        self._headers = {
            "Authorization": f"Basic {credentials}",
            "Content-Type": "application/x-www-form-urlencoded",
            "Accept": "application/json",
        }
        self._client = Client("Twilio", settings.timeout, secrets=[auth_token, credentials])
        self._settled: OrderedDict[str, dict[str, str | DeliveryError]] = OrderedDict()
        """Message key to recipient to the message's SID, or why the recipient cannot have it."""
        self._lock = Lock()

    def send(self, message: Message) -> str | None:
        """Deliver; see Channel. Twilio's names of the messages (SIDs) are separated by commas.

        Raises DeliveryError when a recipient is to be tried again, or when none could have it.
        """
        settled = self._recall(message.key)
        ends = time.monotonic() + ATTEMPT * self._settings.timeout
        failure: DeliveryError | None = None
        for recipient in self._settings.recipients:
            if recipient in settled:
                continue
            if (left := ends - time.monotonic()) <= 0:
                failure = failure or DeliveryError("Twilio is too slow for all recipients in one attempt")
                break
            answer = self._client.post(self._url, self._form(recipient, message), self._headers, left)
            if answer.status == _CREATED:
                settled[recipient] = _sid(answer)
                continue
            error = self._error(answer)
            if answer.status in _OF_THE_ACCOUNT:
                raise error
            if error.permanent:
                settled[recipient] = error
            else:
                failure = error  # perhaps of this recipient only: the others are not to wait
        if failure:
            raise failure
        self._forget(message.key)
        return self._result(settled)

    def _form(self, recipient: str, message: Message) -> bytes:
        sender = "MessagingServiceSid" if self._settings.sender.startswith("MG") else "From"
        return urlencode(
            {"To": recipient, sender: self._settings.sender, "Body": message.parts["sms.txt"]}
        ).encode()

    def _error(self, answer: Answer) -> DeliveryError:
        if answer.ok:
            # It may have been taken, so do not repeat it.
            return DeliveryError(
                f"Twilio answered {answer.status} where 201 was expected: check the channel's host",
                permanent=True,
            )
        document = answer.json()
        if not isinstance(document, dict) or "message" not in document:
            return self._client.error(answer)
        code = f" (code {document['code']})" if "code" in document else ""
        return self._client.error(answer, f"{document['message']}{code}")

    def _result(self, settled: dict[str, str | DeliveryError]) -> str | None:
        sids = [result for result in settled.values() if isinstance(result, str)]
        refused = {to: error for to, error in settled.items() if isinstance(error, DeliveryError)}
        if not sids:
            raise next(iter(refused.values()))
        if refused:
            reasons = {recipient: str(error) for recipient, error in refused.items()}
            log.warning("some recipients were refused", extra={"refused": reasons})
        return ",".join(filter(None, sids)) or None

    def _recall(self, key: str) -> dict[str, str | DeliveryError]:
        with self._lock:
            settled = self._settled.setdefault(key, {})
            self._settled.move_to_end(key)
            if len(self._settled) > _REMEMBERED:
                self._settled.popitem(last=False)
            return settled

    def _forget(self, key: str) -> None:
        with self._lock:
            self._settled.pop(key, None)


def _sid(answer: Answer) -> str:
    document = answer.json()
    sid = document.get("sid") if isinstance(document, dict) else None
    return sid if isinstance(sid, str) else ""
