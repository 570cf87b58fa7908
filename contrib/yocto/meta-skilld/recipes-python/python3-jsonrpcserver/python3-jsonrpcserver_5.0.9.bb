SUMMARY = "Process JSON-RPC requests"
DESCRIPTION = "${SUMMARY}, whatever they came by"
HOMEPAGE = "https://github.com/explodinglabs/jsonrpcserver"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://LICENSE;md5=61b63ea9d36f6fb63ddaaaac8265304f"

inherit pypi python_setuptools_build_meta

SRC_URI[sha256sum] = "a71fb2cfa18541c80935f60987f92755d94d74141248c7438847b96eee5c4482"

RDEPENDS:${PN} += "python3-asyncio python3-json python3-jsonschema python3-logging python3-oslash"
