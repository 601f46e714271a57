"""python deploy/pin_images.py: write the digest of each foreign image behind its tag, where docker reads it.

A tag can be moved to other contents, a digest cannot. Needs docker with buildx, and the registry. Run it again after
changing a tag.
"""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

FILES = ("Dockerfile", "docker-compose.yml")
IMAGE = re.compile(r"^(FROM |    image: )([\w./-]+:[\w.-]+)(@sha256:[0-9a-f]{64})?(?=\s|$)", re.MULTILINE)
"""Images with a tag; stages of the Dockerfile have none."""

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
OWN = ":local"


def images(text: str) -> list[str]:
    """Foreign images, each with its digest if it has one."""
    return [f"{name}{digest or ''}" for _, name, digest in IMAGE.findall(text) if not name.endswith(OWN)]


def pinned(text: str, digest_of: Callable[[str], str]) -> str:
    """The text with today's digest behind each tag. digest_of : an image's, "sha256:…"."""

    def with_digest(found: re.Match[str]) -> str:
        before, name, _ = found.groups()
        return found[0] if name.endswith(OWN) else f"{before}{name}@{digest_of(name)}"

    return IMAGE.sub(with_digest, text)


def of_registry(image: str) -> str:
    """Raises RuntimeError if docker or the registry does not say."""
    command = ["docker", "buildx", "imagetools", "inspect", "--format", "{{.Manifest.Digest}}", image]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeError(f"{image}: no answer: {error}") from error
    digest = done.stdout.strip()
    if done.returncode or not DIGEST.fullmatch(digest):
        raise RuntimeError(f"{image}: no digest: {(done.stderr or done.stdout).strip()[:300]}")
    return digest


def main() -> int:
    try:
        texts = {name: pinned(Path(name).read_text(), of_registry) for name in FILES}
    except RuntimeError as error:
        print(f"{error}; nothing was changed", file=sys.stderr)
        return 1
    for name, text in texts.items():
        Path(name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
