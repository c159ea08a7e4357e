//! Whose a certificate is, as one line of printable ASCII: its subject by RFC 4514. It does not know whether the
//! certificate is right.

use std::fmt::Write;

use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::asn1_rs::{Oid, ToDer};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::AttributeTypeAndValue;

/// More is nobody's name, and has to go into one field of a head.
const BYTES_MAX: usize = 4096;

/// RFC 4514 §3, and two that OpenSSL names besides.
const NAMES: [(&[u64], &str); 11] = [
    (&[2, 5, 4, 3], "CN"),
    (&[2, 5, 4, 5], "serialNumber"),
    (&[2, 5, 4, 6], "C"),
    (&[2, 5, 4, 7], "L"),
    (&[2, 5, 4, 8], "ST"),
    (&[2, 5, 4, 9], "STREET"),
    (&[2, 5, 4, 10], "O"),
    (&[2, 5, 4, 11], "OU"),
    (&[0, 9, 2342, 19200300, 100, 1, 1], "UID"),
    (&[0, 9, 2342, 19200300, 100, 1, 25], "DC"),
    (&[1, 2, 840, 113549, 1, 9, 1], "emailAddress"),
];

/// `None` for what is no certificate, or has a subject without measure.
pub fn subject(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    // The last of the sequence comes first, RFC 4514 §2.1.
    let names: Vec<_> = parsed.subject().iter_rdn().collect();
    let mut line = String::new();
    for name in names.into_iter().rev() {
        if !line.is_empty() {
            line.push(',');
        }
        for (at, attribute) in name.iter().enumerate() {
            if at > 0 {
                line.push('+');
            }
            put(&mut line, attribute)?;
        }
    }
    (line.len() <= BYTES_MAX).then_some(line)
}

fn put(line: &mut String, attribute: &AttributeTypeAndValue<'_>) -> Option<()> {
    let kind = attribute.attr_type();
    let name = NAMES.iter().find(|(numbers, _)| Oid::from(numbers).is_ok_and(|oid| oid == *kind));
    match name {
        Some((_, name)) => line.push_str(name),
        None => line.push_str(&kind.to_id_string()),
    }
    line.push('=');
    match attribute.as_str() {
        Ok(value) if name.is_some() => escape(line, value),
        // A value that has no text, or whose kind has no name, is told as its encoding (RFC 4514 §2.4).
        Ok(_) | Err(_) => {
            line.push('#');
            for byte in attribute.attr_value().to_der_vec().ok()? {
                // Writing into a string cannot fail.
                let _ = write!(line, "{byte:02x}");
            }
        }
    }
    Some(())
}

/// RFC 4514 §2.4. What is not printable ASCII is told in hexadecimal, which the section allows for any byte: such a value
/// goes into a field of a head.
fn escape(line: &mut String, value: &str) {
    let last = value.len().saturating_sub(1);
    for (at, byte) in value.bytes().enumerate() {
        match byte {
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' => {
                line.push('\\');
                line.push(char::from(byte));
            }
            b' ' if at == 0 || at == last => line.push_str("\\ "),
            b'#' if at == 0 => line.push_str("\\#"),
            b' '..=b'~' => line.push(char::from(byte)),
            _ => {
                let _ = write!(line, "\\{byte:02X}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::*;

    fn of(names: impl IntoIterator<Item = (DnType, String)>) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in names {
            params.distinguished_name.push(kind, value);
        }
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        subject(certificate.der()).unwrap()
    }

    fn check(names: &[(DnType, &str)], expected: &str) {
        assert_eq!(of(names.iter().map(|(kind, value)| (kind.clone(), (*value).to_owned()))), expected);
    }

    #[test]
    fn the_last_comes_first() {
        check(
            &[(DnType::CountryName, "DE"), (DnType::OrganizationName, "Example"), (DnType::CommonName, "device-1")],
            "CN=device-1,O=Example,C=DE",
        );
        check(&[], "");
    }

    #[test]
    fn what_has_a_meaning_is_escaped() {
        check(&[(DnType::CommonName, " a, b+c=\"d\"<e>;\\ ")], r#"CN=\ a\, b\+c=\"d\"\<e\>\;\\\ "#);
        check(&[(DnType::CommonName, "#1#")], r"CN=\#1#");
    }

    #[test]
    fn no_control_and_no_byte_above_ascii_is_left() {
        check(&[(DnType::CommonName, "a\r\nX-Role: admin\0\u{7f}")], r"CN=a\0D\0AX-Role: admin\00\7F");
        check(&[(DnType::CommonName, "J\u{f6}rg")], r"CN=J\C3\B6rg");
    }

    #[test]
    fn a_kind_without_a_name_is_told_by_number() {
        check(&[(DnType::CustomDnType(vec![1, 2, 3, 4]), "x")], "1.2.3.4=#0c0178");
    }

    #[test]
    fn a_subject_without_measure_is_none() {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "x".repeat(5000));
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        assert_eq!(subject(certificate.der()), None);
        assert_eq!(subject(&CertificateDer::from(vec![1, 2, 3])), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_subject_fits_in_a_field_of_a_head(value in any::<String>()) {
            let line = of([(DnType::CommonName, value)]);
            prop_assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{}", line);
            prop_assert!(!line.starts_with(' ') && (!line.ends_with(' ') || line.ends_with("\\ ")));
        }
    }
}
