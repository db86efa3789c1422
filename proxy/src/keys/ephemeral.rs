//! Short-lived keys for browsers: signed with what is kept of the key that made them, so that any gateway with the same file takes
//! them, and none outlives its maker.

use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::keys::set::{Holder, Refused, Set};

/// Sets these signatures apart from all else that may be signed with the same.
const PURPOSE: &[u8] = b"speechstack client secret\n";

impl Holder {
    /// The text, signed: it counts until `expires`, seconds of Unix time. `text` has no full stop. `None` for tokens, of which
    /// other gateways keep nothing to check it by.
    pub fn sign(&self, text: &str, expires: u64) -> Option<String> {
        let hash = self.hash.as_ref()?;
        let signed = format!("{text}.{}.{expires}", self.id);
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, hash), &message(&signed));
        Some(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag)))
    }
}

impl Set {
    /// The key that signed a text, at `now`, seconds of Unix time.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn signer(&self, text: &str, now: u64) -> Result<&Arc<Holder>, Refused> {
        let (signed, tag) = text.rsplit_once('.').ok_or(Refused::Unknown)?;
        let (rest, expires) = signed.rsplit_once('.').ok_or(Refused::Unknown)?;
        let (_, id) = rest.rsplit_once('.').ok_or(Refused::Unknown)?;
        let holder = self.by_id(id, now)?;
        let tag = URL_SAFE_NO_PAD.decode(tag).map_err(|_| Refused::Unknown)?;
        let hash = holder.hash.as_ref().ok_or(Refused::Unknown)?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, hash);
        hmac::verify(&key, &message(signed), &tag).map_err(|_| Refused::Unknown)?;
        let expires: u64 = expires.parse().map_err(|_| Refused::Unknown)?;
        if expires < now { Err(Refused::Expired) } else { Ok(holder) }
    }
}

fn message(signed: &str) -> Vec<u8> {
    [PURPOSE, signed.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::keys::file::File;
    use crate::keys::key;

    use super::*;

    #[test]
    fn a_signed_text_counts_for_its_signer_until_it_expires() {
        let made = key::make().unwrap();
        let record = |hash: &str| format!("keys: [{{id: \"{}\", name: alice, sha256: \"{hash}\"}}]", made.id);
        let set = |hash: &str| Set::of(File::parse(Path::new("k"), &record(hash)).unwrap());
        let mine = set(&key::hex(&key::hash(&made.text)));
        let signed = mine.check(&made.text, 0).unwrap().sign("ek_e30", 100).unwrap();
        assert_eq!(&*mine.signer(&signed, 100).unwrap().name, "alice");
        assert_eq!(mine.signer(&signed, 101), Err(Refused::Expired));
        assert_eq!(set(&"0".repeat(64)).signer(&signed, 0), Err(Refused::Unknown), "of another key");
        assert_eq!(Set::default().signer(&signed, 0), Err(Refused::Unknown), "revoked");
        let longer = signed.replacen(".100.", ".900.", 1);
        for wrong in ["", "ek_e30", "a.b.c.d", longer.as_str(), &signed[..signed.len() - 1]] {
            assert_eq!(mine.signer(wrong, 0), Err(Refused::Unknown), "{wrong}");
        }
    }
}
