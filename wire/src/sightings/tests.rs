use super::*;
use crate::Secret;

const NEEDS: Needs = Needs { future_iat_tolerance_seconds: 5, now_seconds: 1_750_000_000 };

fn derived(byte: u8) -> DerivedKeys {
    Secret::new(&[byte; 32]).unwrap().derive()
}

fn full() -> Sighting {
    Sighting {
        kind: Kind::Session,
        session: RevocationKey([1; 16]),
        user: Some(RevocationKey([2; 16])),
        age_millis: 1234,
        client: Client {
            network: Some(Cidr::parse("203.0.113.0/24").unwrap()),
            agent: Some([3; 8]),
            certificate: Some([4; 8]),
            country: Some(*b"DE"),
            place: Place::new(5252, -1341),
        },
        names: None,
    }
}

fn empty() -> Sighting {
    Sighting {
        kind: Kind::Token,
        session: RevocationKey([9; 16]),
        user: None,
        age_millis: 0,
        client: Client::default(),
        names: None,
    }
}

fn report(sightings: &[Sighting]) -> Report {
    Report::new(&derived(1), [7; 16], NEEDS, sightings)
}

/// A report with other bytes at the end of its content, and a valid MAC.
fn resigned(report: &Report, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = report.bytes()[..report.bytes().len() - MAC].to_vec();
    change(&mut bytes);
    sign_request(&derived(1), bytes).0
}

#[test]
fn a_report_is_read_as_it_was_made() {
    let v6 = Client { network: Some(Cidr::parse("2001:db8:1:200::/56").unwrap()), ..Client::default() };
    let all = [full(), empty(), Sighting { client: v6, ..empty() }];
    let secrets = [derived(2), derived(1)];
    let read = Reported::read(&secrets, report(&all).bytes()).unwrap();
    assert_eq!((read.secret(), read.sightings(), read.needs()), (1, &all[..], NEEDS));
}

#[test]
fn as_many_as_fit_are_sent_and_read() {
    let name = "é".repeat(200);
    let name = &name[..254];
    let named = Names::new(&format!("{name}."), Some(&format!("{name}.")), Some(&format!("{name}."))).unwrap();
    let many = vec![Sighting { names: Some(named.into()), ..full() }; MAX_SIGHTINGS + 1];
    let sent = report(&many);
    assert_eq!(sent.bytes().len(), MAX_REPORT_BYTES);
    assert_eq!(Reported::read(&[derived(1)], sent.bytes()).unwrap().sightings().len(), MAX_SIGHTINGS);
    assert!(matches!(Reported::read(&[derived(1)], report(&[]).bytes()), Err(QuestionError::Count)));
}

#[test]
fn names_are_sent_if_they_are_there_and_are_those_of_the_keys() {
    let keys = derived(1);
    let named = Sighting {
        session: keys.revocation_key(Kind::Session, "https://i", b"s"),
        user: Some(keys.revocation_key(Kind::User, "https://i", b"u")),
        names: Names::new("https://i", Some("s"), Some("u")).map(Box::new),
        ..full()
    };
    let without_user = Sighting { names: Names::new("https://i", Some("s"), None).map(Box::new), ..named.clone() };
    let all = [named.clone(), full(), without_user];
    let sent = report(&all);
    let read = Reported::read(&[derived(1)], sent.bytes()).unwrap();
    assert_eq!(read.sightings(), all);
    let plain = report(&[full()]);
    assert_eq!((&sent.bytes()[..4], &plain.bytes()[..4]), (&b"PCS3"[..], &b"PCS1"[..]));
    let fits = |issuer: &str, session, user| Names::new(issuer, session, user).unwrap().are_of(&named, &keys);
    assert!(fits("https://i", Some("s"), Some("u")) && fits("https://i", None, Some("u")));
    for (issuer, session, user) in [("https://j", "s", "u"), ("https://i", "t", "u"), ("https://i", "s", "v")] {
        assert!(!fits(issuer, Some(session), Some(user)), "{issuer} {session} {user}");
    }
    let token = Sighting { kind: Kind::Token, ..named.clone() };
    assert!(!token.names.as_ref().unwrap().are_of(&token, &keys), "a token is no session");
    assert_eq!(Names::new(&"x".repeat(256), None, None), None);
    assert_eq!(Names::new("https://i", Some(""), None), None);
}

#[test]
fn every_changed_byte_is_noticed() {
    let sent = report(&[full()]);
    for at in 0..sent.bytes().len() {
        let mut bytes = sent.bytes().to_vec();
        bytes[at] ^= 1;
        assert!(Reported::read(&[derived(1)], &bytes).is_err(), "byte {at}");
        assert!(Reported::read(&[derived(1)], &sent.bytes()[..at]).is_err(), "length {at}");
    }
    assert!(matches!(Reported::read(&[derived(2)], sent.bytes()), Err(QuestionError::UnknownSecret)));
}

#[test]
fn what_no_filter_writes_is_refused() {
    let start = REQUEST_HEAD + 2;
    let refused = |what: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let bytes = resigned(&report(&[full()]), change);
        assert!(Reported::read(&[derived(1)], &bytes).is_err(), "{what}");
    };
    refused("a kind that names no session", &|bytes| bytes[start] = Kind::User.code());
    refused("two families", &|bytes| bytes[start + 38] |= V6);
    refused("bits beyond the prefix", &|bytes| bytes[start + 55] = 1);
    refused("a prefix that is too long", &|bytes| bytes[start + 39] = 33);
    refused("a country in small letters", &|bytes| bytes[start + 72] = b'd');
    refused("a place beyond the pole", &|bytes| bytes[start + 74..start + 76].copy_from_slice(&9001i16.to_be_bytes()));
    refused("a byte too many", &|bytes| bytes.push(0));
    // Of a sighting with names, after its client.
    let named = Sighting { names: Names::new("i", Some("s"), None).map(Box::new), ..full() };
    let end = start + SIGHTING;
    let refused = |what: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let bytes = resigned(&report(std::slice::from_ref(&named)), change);
        assert!(Reported::read(&[derived(1)], &bytes).is_err(), "{what}");
    };
    refused("a name longer than the report", &|bytes| bytes[end] = 9);
    refused("a session without an issuer", &|bytes| {
        bytes.splice(end..end + 2, [0]);
    });
    refused("bytes that are no text", &|bytes| bytes[end + 1] = 0xff);
}

#[test]
fn only_a_reply_of_our_service_to_this_report_counts() {
    let (sent, keys) = (report(&[full()]), derived(1));
    let read = Reported::read(std::slice::from_ref(&keys), sent.bytes()).unwrap();
    assert_eq!(sent.is_taken(&keys, 200, &read.reply(&keys, 200, true)), Ok(true));
    assert_eq!(sent.is_taken(&keys, 503, &read.reply(&keys, 503, false)), Ok(false));
    assert_eq!(sent.is_taken(&keys, 200, &read.reply(&keys, 503, true)), Err(ReplyError::OtherStatus));
    assert_eq!(report(&[empty()]).is_taken(&keys, 200, &read.reply(&keys, 200, true)), Err(ReplyError::OtherQuestion));
    assert_eq!(sent.is_taken(&keys, 200, b"taken"), Err(ReplyError::Malformed));
}
