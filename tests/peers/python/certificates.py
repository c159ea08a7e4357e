"""Certificates as an operator makes them: by the command `openssl`. Also a command of its own, for the tests in Node:
`certificates.py FOLDER` makes one set, `ca`, `server`, `clients` and `client`."""

import subprocess
import sys
from pathlib import Path

KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


class Authority:
    """Somebody who signs; files are `NAME.pem` and `NAME.key` in a folder."""

    def __init__(self, folder, name):
        self.folder, self.name = Path(folder), name
        self.pem = self.folder / f"{name}.pem"
        marks = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"]
        self._openssl("req", "-x509", *KEY, "-keyout", f"{name}.key", "-out", f"{name}.pem", "-days", "30",
                      "-subj", f"/CN={name}", *marks)

    def sign(self, name, names=(), days=30, usage="serverAuth", subject=None):
        """A certificate for these names, its file's name `name`."""
        self._openssl("req", *KEY, "-keyout", f"{name}.key", "-out", f"{name}.csr",
                      "-subj", subject or f"/CN={name}")
        lines = [f"extendedKeyUsage={usage}"]
        if names:
            lines.append("subjectAltName=" + ",".join(f"DNS:{one}" for one in names))
        (self.folder / f"{name}.ext").write_text("\n".join(lines) + "\n")
        self._openssl("x509", "-req", "-in", f"{name}.csr", "-CA", f"{self.name}.pem", "-CAkey", f"{self.name}.key",
                      "-CAcreateserial", "-out", f"{name}.pem", "-days", str(days), "-extfile", f"{name}.ext")
        return self.folder / f"{name}.pem", self.folder / f"{name}.key"

    def _openssl(self, *words):
        subprocess.run(["openssl", *words], cwd=self.folder, check=True, capture_output=True)


def self_signed(folder, name, names):
    alternatives = "subjectAltName=" + ",".join(f"DNS:{one}" for one in names)
    subprocess.run(["openssl", "req", "-x509", *KEY, "-keyout", f"{name}.key", "-out", f"{name}.pem", "-days", "30",
                    "-subj", f"/CN={name}", "-addext", alternatives], cwd=folder, check=True, capture_output=True)
    return Path(folder) / f"{name}.pem", Path(folder) / f"{name}.key"


if __name__ == "__main__":
    target = sys.argv[1]
    Authority(target, "ca").sign("server", ["a.example", "*.b.example", "localhost"])
    Authority(target, "clients").sign("client", usage="clientAuth", subject="/O=Example/CN=device, 1")
