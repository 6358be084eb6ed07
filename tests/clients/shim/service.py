"""What kafka-python's fixtures import and its source package lacks: a broker that somebody else runs."""


class ExternalService:
    """Named by its address, and left alone."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port

    def open(self) -> None:
        """It runs already."""

    def start(self) -> None:
        """It runs already."""

    def stop(self) -> None:
        """Not the suite's to stop."""

    def dump_logs(self) -> None:
        """They are elsewhere."""


class SpawnedService:
    """Never made: the suite is told of a broker that runs."""
