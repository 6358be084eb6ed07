"""One view for each thing that a proxy can get wrong."""

import hashlib
import time
from collections.abc import Iterator

import stripe
from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

MEBIBYTE = 1024 * 1024


def home(request: HttpRequest) -> HttpResponse:
    """The front page."""
    return HttpResponse("<!doctype html><title>Shop</title><h1>The shop is open</h1>")


def healthz(request: HttpRequest) -> HttpResponse:
    """For Wardent's health check."""
    return HttpResponse("ok", content_type="text/plain")


def digest(request: HttpRequest) -> tuple[str, int]:
    """SHA-256 and length of the body, read piece by piece: an upload never has to fit into memory."""
    sha256, length = hashlib.sha256(), 0
    while piece := request.read(64 * 1024):
        sha256.update(piece)
        length += len(piece)
    return sha256.hexdigest(), length


@csrf_exempt
def echo(request: HttpRequest) -> JsonResponse:
    """What arrived here, as it arrived."""
    sha256, length = digest(request)
    return JsonResponse(
        {
            "method": request.method,
            "path": request.path,
            "target": request.META.get("RAW_URI"),
            "headers": dict(request.headers),
            "peer": request.META.get("REMOTE_ADDR"),
            "sha256": sha256,
            "length": length,
        }
    )


@csrf_exempt
@require_POST
def upload(request: HttpRequest) -> JsonResponse:
    """Takes a file of any size, as the raw body."""
    sha256, length = digest(request)
    return JsonResponse({"sha256": sha256, "length": length})


@csrf_exempt
@require_POST
def stripe_webhook(request: HttpRequest) -> JsonResponse:
    """Takes an event from Stripe.

    The signature is over the bytes that Stripe sent. So it is checked against `request.body`, before
    anything parses it; a proxy that rewrites JSON, however harmlessly, breaks it here.
    """
    signature = request.headers.get("Stripe-Signature", "")
    for secret in settings.STRIPE_WEBHOOK_SECRETS:
        try:
            event = stripe.Webhook.construct_event(request.body, signature, secret)
        except (ValueError, stripe.SignatureVerificationError):
            continue
        return JsonResponse({"received": event["id"]})
    # Not 2xx, so that Stripe tries again.
    return JsonResponse({"error": "bad signature"}, status=400)


def events(request: HttpRequest) -> StreamingHttpResponse:
    """Server-sent events: `?count=3&interval=0.2`. Each carries the time at which it was made."""
    count = int(request.GET.get("count", "3"))
    interval = float(request.GET.get("interval", "0.2"))

    def stream() -> Iterator[bytes]:
        for number in range(count):
            if number:
                time.sleep(interval)
            yield f"id: {number}\ndata: {time.time()}\n\n".encode()

    response = StreamingHttpResponse(stream(), content_type="text/event-stream")
    response["Cache-Control"] = "no-store"
    # nginx holds a response back until its buffer is full; this asks it not to.
    response["X-Accel-Buffering"] = "no"
    return response


def block(number: int) -> bytes:
    """The `number`th MiB of a download: different from every other, and the same every time."""
    return hashlib.sha256(b"%d" % number).digest() * (MEBIBYTE // 32)


def download(request: HttpRequest, mebibytes: int) -> StreamingHttpResponse:
    """That many MiB with a known content, made as they are sent."""
    response = StreamingHttpResponse(
        (block(number) for number in range(mebibytes)),
        content_type="application/octet-stream",
    )
    response["Content-Length"] = mebibytes * MEBIBYTE
    return response


@csrf_exempt
def slow(request: HttpRequest, seconds: str) -> HttpResponse:
    """Answers after that many seconds."""
    time.sleep(float(seconds))
    return HttpResponse(f"after {seconds} s", content_type="text/plain")


@csrf_exempt
def slow_body(request: HttpRequest, seconds: str) -> StreamingHttpResponse:
    """Starts its answer at once and ends it after that many seconds."""

    def stream() -> Iterator[bytes]:
        yield b"begun\n"
        time.sleep(float(seconds))
        yield b"done\n"

    response = StreamingHttpResponse(stream(), content_type="text/plain")
    response["X-Accel-Buffering"] = "no"
    return response


@csrf_exempt
def status(request: HttpRequest, code: str) -> HttpResponse:
    """Any answer on demand, with a body of Django's own."""
    return HttpResponse(
        f"Django says {code}", status=int(code), content_type="text/plain"
    )
