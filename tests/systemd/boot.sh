#!/bin/sh
# Boots systemd in namespaces, on a copy of this machine's files that forgets what is written to it.
#
#   boot.sh CGROUP DIRECTORY [FROM:TO]...
#
# CGROUP is a directory below the cgroup2 mount, already made. DIRECTORY has unit files in "units", "notify", the datagram
# socket that is told when the boot is over, and an empty directory "disk". FROM is shown at TO, read-only. The caller
# ends it all by killing this process.
#
# A cgroup and a cgroup namespace of its own are vital: systemd moves every process of the cgroup that it takes for the
# root into one of its own making.
set -eu
cgroup=$1 directory=$2
shift 2
echo $$ >"$cgroup/cgroup.procs"
exec unshare --fork --kill-child --mount --pid --cgroup --ipc --uts --net sh -eu -s "$directory" "$@" <<'INSIDE'
directory=$1 disk=$1/disk
shift
mount --make-rprivate /
mount -t tmpfs none "$disk"
mkdir "$disk/written" "$disk/work" "$disk/root"
mount -t overlay -o "lowerdir=/,upperdir=$disk/written,workdir=$disk/work" none "$disk/root"
cd "$disk/root"

# What a machine has from its kernel. A /dev and a console of its own: nothing is to reach the real ones.
mount -t proc none proc
mount -t sysfs none sys
mkdir -p sys/fs/cgroup
mount -t cgroup2 none sys/fs/cgroup
mount -t tmpfs -o mode=755 none dev
mknod -m 666 dev/null c 1 3
mknod -m 666 dev/zero c 1 5
mknod -m 666 dev/full c 1 7
mknod -m 666 dev/random c 1 8
mknod -m 666 dev/urandom c 1 9
mknod -m 666 dev/tty c 5 0
mknod -m 600 dev/console c 1 3
mkdir dev/pts dev/shm dev/mqueue dev/hugepages
mount -t devpts -o newinstance,ptmxmode=666 none dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs -o mode=755 none run
mount -t tmpfs -o mode=1777 none tmp

# Only the units of the test: the real ones would set up, and clean up, a whole machine.
mount -t tmpfs -o mode=755 none etc/systemd/system
mkdir -p run/units run/systemd/system run/host
cp -R "$directory/units/." run/units
touch run/host/notify
mount --bind "$directory/notify" run/host/notify
for pair in "$@"; do
	mkdir -p ".${pair#*:}"
	mount --bind -o ro "${pair%%:*}" ".${pair#*:}"
done

mkdir run/before
pivot_root . run/before
umount -l /run/before
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin container=test \
	NOTIFY_SOCKET=/run/host/notify SYSTEMD_UNIT_PATH=/etc/systemd/system:/run/units SYSTEMD_GENERATOR_PATH=/nonexistent \
	/lib/systemd/systemd --system --show-status=no --log-target=journal
INSIDE
