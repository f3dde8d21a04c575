# What every command in the guest finds. /in holds what the host passed.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root LANG=C.UTF-8 TERM=dumb NO_COLOR=1 RUST_BACKTRACE=1
export MANIFOLD_BIN=/in/manifold MANIFOLD_TEST_APPS=/in/apps
# Which of the tests are this guest's, and if it has time for all of them.
for word in $(cat /proc/cmdline); do
  case $word in
    part=*) export MANIFOLD_TEST_PART="${word#part=}" ;;
    all=*) export MANIFOLD_TEST_ALL="${word#all=}" ;;
  esac
done
# As systemd does at boot.
echo 9223372036854775807 > /proc/sys/fs/file-max
cd /root
