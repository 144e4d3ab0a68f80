#!/bin/busybox sh
# First process of a lab guest. From the kernel command line it takes
#   lab.address=198.18.2.1/15   address of its only interface, if it has one
#   lab.dirty=40:20:0           optional: keep writing to 40 MiB of memory, 20 MiB each second, each page after so many steps of reckoning
#   lab.disk=1                  optional: keep writing to its only disk
export PATH=/bin
mount -t devtmpfs none /dev
mount -t proc none /proc
mount -t sysfs none /sys
for module in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci failover net_failover virtio_net \
    virtio_balloon virtio_blk; do
    insmod /lib/$module.ko
done
for word in $(cat /proc/cmdline); do
    case $word in
        lab.address=*) address=${word#*=} ;;
        lab.dirty=*) dirty=${word#*=} ;;
        lab.disk=*) disk=${word#*=} ;;
    esac
done
ip link set lo up
if [ -n "$address" ]; then
    until [ -e /sys/class/net/eth0 ]; do usleep 10000; done
    ip address add "$address" dev eth0
    ip link set eth0 up
fi
[ -z "$dirty" ] || guest dirty $(echo "$dirty" | sed "s/:/ /g") >/dev/console 2>&1 &
[ -z "$disk" ] || guest disk >/dev/console 2>&1 &
exec guest serve >/dev/console 2>&1
