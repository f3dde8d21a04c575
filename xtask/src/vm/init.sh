#!/bin/busybox sh
# PID 1 of the guest, in the initramfs: modules, disks, the real root, then the host's command.
# The host watches the serial line for lines that start with "GUEST ".
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
exec >/dev/console 2>&1 </dev/null
echo "GUEST boot"

die() {
  echo "GUEST failed: $*"
  poweroff -f
}

grep -q manifold.probe /proc/cmdline && poweroff -f

while read -r module; do
  insmod "/mod/$module" || die "insmod $module"
done </mod/order

disk() {
  for block in /sys/block/vd*; do
    if [ "$(cat "$block/serial")" = "$1" ]; then
      echo "/dev/${block##*/}"
      return
    fi
  done
}

mount -t ext4 -o noatime "$(disk root)" /root || die "no root disk"
mount -t tmpfs -o mode=755 tmpfs /root/run || die "/run"
mount -t tmpfs tmpfs /root/tmp || die "/tmp"
mkdir -p /root/in /root/run/lock /root/root
tar -xf "$(disk in)" -C /root/in || die "no input"
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts 2>/dev/null ||
  { mkdir -p /dev/pts && mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts; }
mkdir -p /dev/shm
mount -t tmpfs tmpfs /dev/shm
ln -s /proc/self/fd /dev/fd
ln -s fd/0 /dev/stdin
ln -s fd/1 /dev/stdout
ln -s fd/2 /dev/stderr
mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup || die "no cgroup v2"

hostname guest
ip link set lo up
ip addr add 10.0.2.15/24 dev eth0 && ip link set eth0 up && ip route add default via 10.0.2.2 ||
  die "no network"
rm -f /root/etc/resolv.conf
echo "nameserver 10.0.2.3" >/root/etc/resolv.conf
printf '127.0.0.1 localhost\n::1 localhost\n127.0.1.1 guest\n' >/root/etc/hosts

# The guest's second life: runs the command, tells its status, turns the power off.
cp /bin/busybox /root/in/busybox
cat >/root/in/init <<'SECOND'
#!/bin/sh
echo "GUEST ready after $(cut -d' ' -f1 /proc/uptime) s: kernel $(uname -r), /sys/fs/cgroup is $(stat -fc %T /sys/fs/cgroup) with $(cat /sys/fs/cgroup/cgroup.controllers)"
/bin/bash /in/command </dev/null
status=$?
echo
echo "GUEST status $status"
sync
/in/busybox poweroff -f
SECOND
chmod 755 /root/in/init

for dir in proc sys dev; do
  mount --move "/$dir" "/root/$dir" || die "/$dir"
done
exec switch_root /root /in/init </root/dev/null >/root/dev/console 2>&1
