//! Tags written into a domain's metadata: at once and for its next start, what others keep there untouched.

use anyhow::{bail, ensure};
use decide::units::VmId;
use drivers::hypervisor::{Hypervisor, TagsError};
use lab::libvirt::{self, virsh};
use lab::sandbox;

use crate::hosts::{Pair, empty};

#[test]
fn tags_are_written_where_the_domain_keeps_them_and_nothing_else_is() {
    let name = "tags::tags_are_written_where_the_domain_keeps_them_and_nothing_else_is";
    sandbox::test_with(true, name, || async {
        let mut pair = Pair::start().await?;
        let vm = VmId(0xa1);
        let theirs = "<metadata><t:it xmlns:t='urn:theirs'><t:tag>kept</t:tag></t:it></metadata>";
        let definition =
            empty(&pair.network, vm, 0)?.replace("<memory", &format!("{theirs}<memory"));
        libvirt::start(pair.host(&pair.a), "vm-a1", &definition)?;
        pair.a.finds(vm).await?;
        let written: Vec<String> = ["evenkeel:pin=a & <b>", "theirs"].map(str::to_owned).into();
        for tags in [written, Vec::new()] {
            let wanted = tags.clone();
            let change = Box::new(move |_before| Ok(wanted));
            let told = pair.a.driver().change_tags(vm, change).await?;
            ensure!(told == Ok(tags.clone()), "{told:?}");
            // Read again by the driver itself, with no other cause.
            let (found, _) = pair.a.finds(vm).await?;
            ensure!(found.tags == tags, "{found:?}");
            let kept = virsh(pair.host(&pair.a), &["dumpxml", "--inactive", "vm-a1"])?;
            let live = virsh(pair.host(&pair.a), &["dumpxml", "vm-a1"])?;
            for text in [kept, live] {
                ensure!(text.contains("<t:tag>kept</t:tag>"), "{text}");
                let ours = text.contains("pin=a &amp; &lt;b&gt;");
                ensure!(ours != tags.is_empty(), "{text}");
            }
        }
        let refuses = Box::new(|before: Vec<String>| Err(format!("it has {} tags", before.len())));
        match pair.a.driver().change_tags(vm, refuses).await? {
            Err(TagsError::Wrong(why)) => ensure!(why == "it has 0 tags", "{why}"),
            other => bail!("{other:?}"),
        }
        let change = Box::new(|_before| Ok(Vec::new()));
        match pair.a.driver().change_tags(VmId(0xa2), change).await? {
            Err(TagsError::Refused(why)) => ensure!(why.contains("no such domain"), "{why}"),
            other => bail!("{other:?}"),
        }
        Ok(())
    });
}
