"""All settings. What differs between machines comes from the environment."""

import os

SECRET_KEY = os.environ.get(
    "DJANGO_SECRET_KEY", "for trying it out only: it protects nothing"
)
DEBUG = False
# Wardent passes Host on as the client sent it, so list the site's own names.
ALLOWED_HOSTS = os.environ.get("DJANGO_ALLOWED_HOSTS", "*").split(",")
ROOT_URLCONF = "shop.urls"
WSGI_APPLICATION = "shop.wsgi.application"
ASGI_APPLICATION = "shop.asgi.application"
USE_TZ = True

# nginx terminates TLS and says so; Wardent lets nobody else say it.
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]

# `app=/etc/shop/wardent-key`: the key's id and file, as `secret.upstream` in wardent.yaml has them.
# During a rotation two, separated by commas.
WARDENT_KEYS = dict(
    pair.split("=", 1) for pair in os.environ.get("WARDENT_KEYS", "").split(",") if pair
)
# Paths that answer without: here the one that Wardent's health check asks for.
WARDENT_OPEN_PATHS = ["/healthz"]
if WARDENT_KEYS:
    MIDDLEWARE.insert(0, "wardent_middleware.WardentMiddleware")

# The signing secrets of the webhook endpoint, `whsec_…`; two while one is being rolled.
STRIPE_WEBHOOK_SECRETS = [
    secret
    for secret in os.environ.get("STRIPE_WEBHOOK_SECRET", "").split(",")
    if secret
]
