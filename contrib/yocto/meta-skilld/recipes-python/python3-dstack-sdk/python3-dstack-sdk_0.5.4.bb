SUMMARY = "Client of dstack's guest agent"
DESCRIPTION = "${SUMMARY}: keys, quotes and signatures of a confidential VM"
HOMEPAGE = "https://github.com/Dstack-TEE/dstack"
LICENSE = "Apache-2.0"
# The source archive has no file with the text of the license.
LIC_FILES_CHKSUM = "file://pyproject.toml;beginline=20;endline=21;md5=e8f88380a83ef129b8d9153109524083"

PYPI_PACKAGE = "dstack_sdk"
inherit pypi python_pdm

SRC_URI[sha256sum] = "0a5426cf37bcd89f98db37aced09a8a95431943ceaf6ed75eb69baca32902c95"

# It also asks for "asyncio" from PyPI, an empty package that stands for what Python has had since 3.4.
RDEPENDS:${PN} += "\
    python3-asyncio \
    python3-cryptography \
    python3-eth-keys \
    python3-eth-utils \
    python3-httpx \
    python3-json \
    python3-logging \
    python3-pydantic \
"
