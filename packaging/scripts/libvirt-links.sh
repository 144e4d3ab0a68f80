# What `setup` for libvirt has linked to files of this package.
libvirt_links_end() {
    rm -f /etc/systemd/system/evenkeeld.service.d/libvirt.conf /etc/tmpfiles.d/evenkeel-libvirt.conf
    rmdir --ignore-fail-on-non-empty /etc/systemd/system/evenkeeld.service.d 2>/dev/null || true
}
