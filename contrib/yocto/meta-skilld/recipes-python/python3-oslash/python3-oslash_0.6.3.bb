SUMMARY = "Functors, applicatives and monads in Python"
DESCRIPTION = "${SUMMARY}, which jsonrpcserver is written with"
HOMEPAGE = "https://github.com/dbrattli/OSlash"
LICENSE = "MIT"
# The source archive has no file with the text of the license.
LIC_FILES_CHKSUM = "file://PKG-INFO;beginline=8;endline=8;md5=a53cbc7cb75660694e138ba973c148df"

PYPI_PACKAGE = "OSlash"
inherit pypi python_setuptools_build_meta

# Its setup.py calls what Python 3.12 took away (configparser.SafeConfigParser) and would download pytest-runner.
SRC_URI += "file://pyproject.toml"
SRC_URI[sha256sum] = "868aeb58a656f2ed3b73d9dd6abe387b20b74fc9413d3e8653b615b15bf728f3"

do_configure:prepend() {
    rm -f ${S}/setup.py ${S}/setup.cfg
    install -m 0644 ${UNPACKDIR}/pyproject.toml ${S}/pyproject.toml
}

RDEPENDS:${PN} += "python3-asyncio python3-json python3-typing-extensions"
