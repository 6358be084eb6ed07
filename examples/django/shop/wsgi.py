"""For gunicorn: `gunicorn --chdir examples/django shop.wsgi`."""

import os
import tempfile
from collections.abc import Callable, Iterable
from typing import Any

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")

MEMORY_MAX = 1024 * 1024
WsgiApplication = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def with_length(application: WsgiApplication) -> WsgiApplication:
    """Gives a chunked body a length before Django sees it.

    Under WSGI Django reads as many bytes as Content-Length says. A chunked request has none, so Django
    takes its body for empty, without a word. nginx sends one for every chunked request of a client if
    `proxy_request_buffering` is off. How large it may be is `body:` in Wardent's policy.
    """

    def wrapped(
        environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        if "CONTENT_LENGTH" in environ or not environ.get("wsgi.input_terminated"):
            return application(environ, start_response)
        with tempfile.SpooledTemporaryFile(MEMORY_MAX) as body:
            while piece := environ["wsgi.input"].read(64 * 1024):
                body.write(piece)
            environ["CONTENT_LENGTH"] = str(body.tell())
            body.seek(0)
            environ["wsgi.input"] = body
            # Views read the body before they return; an answer that streams does not need it.
            return application(environ, start_response)

    return wrapped


application = with_length(get_wsgi_application())
