# What `setup` for libvirt has linked to files of this package.
libvirt_links_end() {
    if grep -qs '^[^#]*migrate_tls_x509_cert_dir.*/run/evenkeel/qemu-tls' /etc/libvirt/qemu.conf; then
        echo 'evenkeel: take migrate_tls_x509_cert_dir and migrate_tls_x509_verify out of /etc/libvirt/qemu.conf: without the folder' \
            '/run/evenkeel/qemu-tls, which is not made at boot any more, libvirt does not start' >&2
    fi
    rm -f /etc/systemd/system/evenkeeld.service.d/libvirt.conf /etc/tmpfiles.d/evenkeel-libvirt.conf
    rmdir --ignore-fail-on-non-empty /etc/systemd/system/evenkeeld.service.d 2>/dev/null || true
}
