"""Where the views are."""

from django.urls import path, re_path

from shop import views

urlpatterns = [
    path("", views.home),
    path("healthz", views.healthz),
    path("webhooks/stripe", views.stripe_webhook),
    path("upload/", views.upload),
    path("events/", views.events),
    path("download/<int:mebibytes>", views.download),
    path("slow/<str:seconds>", views.slow),
    path("slow-body/<str:seconds>", views.slow_body),
    re_path(r"^(?:api/)?status/(?P<code>\d{3})$", views.status),
    re_path(r"^(?:api/)?echo", views.echo),
]
