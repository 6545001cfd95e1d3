//! Cancel keys: which client one names, and, where several processes share an address, which process. Looks nothing up
//! and sends nothing.
//!
//! Without peers the key's process id is the worker's number and the client's. With peers the key is laid out as
//! PgBouncer (1.19 and later) does it, so that both may stand behind one address: the first two bytes of BackendKeyData's
//! eight are the owner's `peer_id`, low byte first, and the last two bits of the secret say how often a request may
//! still be forwarded.

use weir_pool::ClientId;
use weir_protocol::startup::{BackendKey, SecretKey};

/// The key of a new client. `secret` is random; `length` is what the client's protocol version takes.
pub(crate) fn make(
    peer_id: u16,
    worker: u16,
    id: ClientId,
    secret: &[u8; 32],
    length: usize,
) -> Option<BackendKey> {
    let mut secret = *secret;
    let secret = secret.get_mut(..length)?;
    if peer_id == 0 {
        let pid = (u32::from(worker) << CLIENT_BITS) | (id.0 + 1);
        return Some(BackendKey { pid, secret: SecretKey::new(secret)? });
    }
    *secret.last_mut()? |= HOPS_MASK;
    let [low, high] = peer_id.to_le_bytes();
    let [_, _, upper, lower] = id.0.wrapping_add(1).to_be_bytes();
    let pid = u32::from_be_bytes([low, high, upper, lower]);
    Some(BackendKey { pid, secret: SecretKey::new(secret)? })
}

/// Which process a key belongs to.
pub(crate) fn owner(key: &BackendKey) -> u16 {
    let [low, high, ..] = key.pid.to_be_bytes();
    u16::from_le_bytes([low, high])
}

/// The clients below `count` that a key may name; its secret tells which of them it is.
pub(crate) fn candidates(
    peer_id: u16,
    worker: u16,
    pid: u32,
    count: usize,
) -> impl Iterator<Item = ClientId> {
    let bits = if peer_id == 0 { CLIENT_BITS } else { CLIENT_BITS_BESIDE_PEER };
    let is_ours = peer_id != 0 || pid >> CLIENT_BITS == u32::from(worker);
    let mask = (1 << bits) - 1;
    let first = (pid & mask).wrapping_sub(1) & mask;
    // Beside a peer's number there is no room for large ones: every 65536th client shares these bits.
    let step = if peer_id == 0 { usize::MAX } else { mask as usize + 1 };
    let ids = (first as usize..count).step_by(step);
    ids.filter(move |_| is_ours).map(|at| ClientId(crate::id_of(at)))
}

/// Whether the secret of a request is the client's, however often the request was forwarded.
pub(crate) fn is_same(peer_id: u16, own: &SecretKey, wanted: &SecretKey) -> bool {
    if peer_id == 0 {
        return own == wanted;
    }
    with_last(wanted, |last| last | HOPS_MASK).is_some_and(|wanted| *own == wanted)
}

/// The key as it goes to the peer; `None` if it has been forwarded often enough.
pub(crate) fn forwarded(key: &BackendKey) -> Option<BackendKey> {
    let hops = key.secret.as_bytes().last()? & HOPS_MASK;
    if hops == 0 {
        return None;
    }
    Some(BackendKey { pid: key.pid, secret: with_last(&key.secret, |last| last - 1)? })
}

fn with_last(secret: &SecretKey, change: impl FnOnce(u8) -> u8) -> Option<SecretKey> {
    let mut bytes = secret.as_bytes().to_vec();
    let last = bytes.last_mut()?;
    *last = change(*last);
    SecretKey::new(&bytes)
}

/// Bits of a cancel key's process id that name the client within its worker.
const CLIENT_BITS: u32 = 22;

/// The same where a peer's number takes two bytes.
const CLIENT_BITS_BESIDE_PEER: u32 = 16;

/// How often a request may be forwarded: three times at first.
const HOPS_MASK: u8 = 0b11;

#[cfg(test)]
mod tests {
    //! Keys name their client and their process, and no other.
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    const RANDOM: [u8; 32] = [0xa4; 32];

    fn named(peer_id: u16, key: &BackendKey, count: usize) -> Vec<u32> {
        candidates(peer_id, 0, key.pid, count).map(|id| id.0).collect()
    }

    #[test]
    fn a_key_names_its_client() {
        for id in [0, 1, 65_534, 65_535, 65_536, 200_000] {
            let key = make(0, 0, ClientId(id), &RANDOM, 4).unwrap();
            assert_eq!(named(0, &key, 300_000), [id]);
            assert_eq!(candidates(0, 1, key.pid, 300_000).count(), 0, "another worker's");
            let key = make(9, 0, ClientId(id), &RANDOM, 4).unwrap();
            let found = named(9, &key, 300_000);
            assert!(found.contains(&id) && found.len() <= 5, "{id}: {found:?}");
        }
        assert_eq!(candidates(0, 0, 0, 10).count(), 0);
    }

    #[test]
    fn the_layout_is_pgbouncer_s() {
        let key = make(0x1234, 0, ClientId(0x0505), &RANDOM, 4).unwrap();
        assert_eq!(key.pid.to_be_bytes(), [0x34, 0x12, 0x05, 0x06]);
        assert_eq!(key.secret.as_bytes(), [0xa4, 0xa4, 0xa4, 0xa7]);
        assert_eq!(owner(&key), 0x1234);
    }

    #[test]
    fn a_key_is_forwarded_three_times_and_stays_the_same_key() {
        for length in [4, 32] {
            let own = make(7, 0, ClientId(3), &RANDOM, length).unwrap();
            let mut seen = own.clone();
            for _ in 0..3 {
                seen = forwarded(&seen).unwrap();
                assert!(is_same(7, &own.secret, &seen.secret));
            }
            assert_eq!(forwarded(&seen), None);
            let mut other = RANDOM;
            other[length - 1] ^= 4;
            assert!(!is_same(7, &own.secret, &SecretKey::new(&other[..length]).unwrap()));
        }
    }
}
