SUMMARY = "Daemon that serves the agent skills of one machine over a Unix socket"
DESCRIPTION = "skilld watches directories of agent skills, keeps them indexed, and answers JSON-RPC 2.0 and HTTP on a \
Unix socket that systemd owns, as dstack's guest agent does."
HOMEPAGE = "https://agentskills.io"
SECTION = "admin"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://LICENSE;md5=3b83ef96387f14655fc854ddc3c6bd57"
CVE_PRODUCT = "skilld"

# The checkout that this layer is part of. bitbake hashes what it takes from there, so a change builds anew.
SKILLD_CHECKOUT ?= "${@os.path.realpath(os.path.join(d.getVar('THISDIR'), '../../../../..'))}"
FILESEXTRAPATHS:prepend := "${SKILLD_CHECKOUT}:"
SRC_URI = "\
    file://pyproject.toml \
    file://README.md \
    file://LICENSE \
    file://skilld \
    file://systemd \
"
S = "${UNPACKDIR}"

inherit python_setuptools_build_meta systemd useradd

# Made while the image is built: its root is read-only when systemd-sysusers would run.
USERADD_PACKAGES = "${PN}"
GROUPADD_PARAM:${PN} = "--system skilld"
USERADD_PARAM:${PN} = "--system --gid skilld --home-dir ${localstatedir}/lib/skilld --no-create-home --shell /sbin/nologin skilld"

SYSTEMD_SERVICE:${PN} = "skilld.socket skilld.service"
SYSTEMD_AUTO_ENABLE:${PN} = "enable"

do_install:append() {
    install -d ${D}${systemd_system_unitdir} \
        ${D}${nonarch_libdir}/sysusers.d \
        ${D}${nonarch_libdir}/systemd/system-preset \
        ${D}${sysconfdir}/systemd/system/docker.service.d \
        ${D}${sysconfdir}/skilld \
        ${D}${datadir}/skilld/skills
    install -m 0644 ${S}/systemd/skilld.socket ${S}/systemd/skilld.service ${D}${systemd_system_unitdir}
    install -m 0644 ${S}/systemd/sysusers.d/skilld.conf ${D}${nonarch_libdir}/sysusers.d
    install -m 0644 ${S}/systemd/system-preset/81-skilld.preset ${D}${nonarch_libdir}/systemd/system-preset
    install -m 0644 ${S}/systemd/docker.service.d/skilld.conf ${D}${sysconfdir}/systemd/system/docker.service.d
    install -m 0644 ${S}/systemd/skilld.yaml ${D}${sysconfdir}/skilld
}

FILES:${PN} += "\
    ${systemd_system_unitdir} \
    ${nonarch_libdir}/sysusers.d \
    ${nonarch_libdir}/systemd/system-preset \
    ${sysconfdir}/systemd/system/docker.service.d \
"
CONFFILES:${PN} += "${sysconfdir}/skilld/skilld.yaml"

# python3-modules is all of the standard library: the scripts of skills expect it.
RDEPENDS:${PN} += "\
    python3-click \
    python3-dstack-sdk \
    python3-httptools \
    python3-jsonrpcserver \
    python3-modules \
    python3-orjson \
    python3-pyyaml \
    python3-rich \
    python3-watchfiles \
"
# The sandbox of scripts. Without it skilld serves skills and refuses to run them.
RRECOMMENDS:${PN} += "bubblewrap"
