SUMMARY = "Simple, modern and high performance file watching"
DESCRIPTION = "${SUMMARY}, by the Rust crate notify"
HOMEPAGE = "https://github.com/samuelcolvin/watchfiles"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://LICENSE;md5=3c69d58fa5f4ff0b4244368d39546751"

require ${BPN}-crates.inc

inherit pypi cargo-update-recipe-crates python_maturin

SRC_URI[sha256sum] = "99aee4a07847c06820765fd7b1b49ceac4f3f711ccb7d104655a33231de1c207"

RDEPENDS:${PN} += "python3-anyio python3-asyncio python3-json python3-multiprocessing python3-shell"
