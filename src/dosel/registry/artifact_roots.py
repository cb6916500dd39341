"""Where this installation keeps artifacts: `dosel gc` deletes nothing elsewhere."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from dosel.settings import ARTIFACT_BUCKET, Settings


@dataclass(frozen=True)
class ArtifactRoot:
    """A folder of artifacts.

    Attributes:
        uri: as MLflow names it, such as `mlflow-artifacts:/`, `s3://mlflows3` or a path.
        folder: where it is on this machine; None if it is elsewhere.
    """

    uri: str
    folder: Path | None = None

    def holds(self, location: str) -> bool:
        """Whether a location is below this folder by its name, and no link leads to it."""
        root, found = urlsplit(self.uri), urlsplit(location)
        parts, own = Path(found.path).parts, Path(root.path or "/").parts
        if (found.scheme, found.netloc) != (root.scheme, root.netloc) or found.query or found.fragment:
            return False
        if ".." in parts or len(parts) <= len(own) or parts[: len(own)] != own:
            return False
        if self.folder is None:
            return True
        below = self.folder.resolve()
        # Each step on this machine's disk, since any of them can be a link.
        for part in parts[len(own) :]:
            below /= part
            if below.is_symlink():
                return False
        return True


def artifact_roots(settings: Settings) -> tuple[ArtifactRoot, ...]:
    """The folders of an installation: behind MLflow's proxy, in its bucket, or in `DOSEL_HOME`."""
    folder = settings.home.resolve() / "mlflow" / "artifacts"
    return (
        ArtifactRoot("mlflow-artifacts:/", folder if folder.is_dir() else None),
        ArtifactRoot(f"s3://{ARTIFACT_BUCKET}"),
        ArtifactRoot(str(folder), folder),
        ArtifactRoot(f"file://{folder}", folder),
    )
