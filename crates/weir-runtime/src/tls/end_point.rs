//! Channel binding data of a certificate: `tls-server-end-point`, RFC 5929 section 4.1. Reads just enough DER to find
//! out which digest the certificate was signed with.

use aws_lc_rs::digest::{self, Algorithm};

use super::certificate::{OBJECT_IDENTIFIER, SEQUENCE, element};

/// The hash of a certificate that both ends of a connection can compute; `None` if its signature algorithm names no
/// digest (Ed25519) or one that is not handled (RSA-PSS keeps it in parameters): then no binding is offered.
pub(super) fn hash(certificate: &[u8]) -> Option<Vec<u8>> {
    let algorithm = digest_of(signature_algorithm(certificate)?)?;
    Some(digest::digest(algorithm, certificate).as_ref().to_vec())
}

/// RFC 5929: MD5 and SHA-1 give way to SHA-256, any other digest is used as it is.
fn digest_of(oid: &[u8]) -> Option<&'static Algorithm> {
    match oid {
        // 1.2.840.113549.1.1: md5, sha1, sha256, sha384, sha512 with RSA
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 4 | 5 | 11] => Some(&digest::SHA256),
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 12] => Some(&digest::SHA384),
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 13] => Some(&digest::SHA512),
        // 1.2.840.10045.4: ecdsa with sha1; with sha256, sha384, sha512
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 1] | [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 3, 2] => {
            Some(&digest::SHA256)
        }
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 3, 3] => Some(&digest::SHA384),
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 3, 4] => Some(&digest::SHA512),
        _ => None,
    }
}

/// RFC 5280: `SEQUENCE { tbsCertificate SEQUENCE, signatureAlgorithm SEQUENCE { OBJECT IDENTIFIER, .. }, .. }`.
fn signature_algorithm(certificate: &[u8]) -> Option<&[u8]> {
    let (body, _) = element(certificate, SEQUENCE)?;
    let (_, behind_tbs) = element(body, SEQUENCE)?;
    let (algorithm, _) = element(behind_tbs, SEQUENCE)?;
    let (oid, _) = element(algorithm, OBJECT_IDENTIFIER)?;
    Some(oid)
}
