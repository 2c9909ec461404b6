"""docs/redis.acl as a server of the tests loads it: passwords filled in, and the tests' own prefixes.

`default` stays on and may do everything: it is the admin that looks behind.
"""

import hashlib
import re
from pathlib import Path
from urllib.parse import quote, urlsplit

from service.settings import CHECKOUT

FILE = CHECKOUT / "docs" / "redis.acl"
PASSWORD = "a password of the tests"
SERVICE, MIGRATE = "semcached", "semcached-migrate"


def acl_options(folder: Path) -> list[str]:
    """Options of a server under the file."""
    text = FILE.read_text().replace("user default off", "user default on nopass ~* &* +@all")
    text = re.sub("#SHA256[A-Z0-9-]+", "#" + hashlib.sha256(PASSWORD.encode()).hexdigest(), text)
    path = folder / "users.acl"
    path.write_text(text.replace("~sc:*", "~sc:* ~t????????:*"))
    return ["--aclfile", str(path)]


def as_service(url: str, user: str = SERVICE) -> str:
    """The URL of the same server for a user of the file."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{user}:{quote(PASSWORD)}@{host}").geturl()
