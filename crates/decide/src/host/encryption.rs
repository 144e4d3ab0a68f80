//! Whether copies are encrypted: what this host wants, and what two hosts make of what both want.
//!
//! | source | target `off` | `preferred` | `required` |
//! |---|---|---|---|
//! | `off` | clear | clear | refused |
//! | `preferred` | clear | encrypted | encrypted |
//! | `required` | refused | encrypted | encrypted |
//!
//! The request says what the source wants, the acceptance what will be; confirmation and copy are by that alone. A host without
//! keys counts as `off`.
//!
//! **Invariant:** no copy is in the clear from or to a host that requires it encrypted.

use super::Host;
use crate::policy::settings::Encryption;

impl Host {
    /// What this host wants of copies, to here and from here.
    pub fn encryption(&self) -> Encryption {
        match (self.settings.migration.encryption, self.offered.encrypts) {
            // Without keys it takes part in no move, rather than in one that is not as the operator wrote.
            (Some(Encryption::Required), _) | (None, true) => Encryption::Required,
            (Some(wanted), true) => wanted,
            (_, false) => Encryption::Off,
        }
    }

    /// The target's judgement: whether a copy to here will be encrypted, by what its source wants.
    pub(super) fn agree_on_copy(&self, source: Encryption) -> Result<bool, String> {
        let able = self.offered.encrypts;
        let no = |why: &str| Err(format!("migration.encryption: {why}"));
        match (source, self.encryption()) {
            (_, Encryption::Required) if !able => {
                no("required here, but this host has no keys to encrypt copies by")
            }
            (Encryption::Off, Encryption::Required) => {
                no("an encrypted copy is required here, at its source it is off")
            }
            (Encryption::Required, Encryption::Off) if able => {
                no("its source requires an encrypted copy, here it is off")
            }
            (Encryption::Required, Encryption::Off) => {
                no("its source requires an encrypted copy, this host has no keys for it")
            }
            (Encryption::Off, _) | (_, Encryption::Off) => Ok(false),
            (_, Encryption::Preferred | Encryption::Required) => Ok(true),
        }
    }

    /// Whether what was agreed is what this host wants, by the settings of now.
    pub(super) fn keeps_encryption(&self, encrypted: bool) -> Result<(), String> {
        if !encrypted && self.encryption() == Encryption::Required {
            return Err(
                "migration.encryption: required here, the copy would be in the clear".to_owned()
            );
        }
        Ok(())
    }
}
