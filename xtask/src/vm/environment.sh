# What every command in the guest finds. /in holds what the host passed.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root LANG=C.UTF-8 TERM=dumb NO_COLOR=1 RUST_BACKTRACE=1
export MANIFOLD_BIN=/in/manifold MANIFOLD_TEST_APPS=/in/apps
# As systemd does at boot.
echo 9223372036854775807 > /proc/sys/fs/file-max
cd /root
