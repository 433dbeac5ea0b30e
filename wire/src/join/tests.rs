use super::*;
use crate::Secret;

const NEEDS: Needs = Needs { future_iat_tolerance_seconds: 5, now_seconds: 1_700_000_000 };

fn derived(byte: u8) -> DerivedKeys {
    Secret::new(&[byte; 32]).unwrap().derive()
}

fn key(byte: u8) -> RevocationKey {
    RevocationKey([byte; 16])
}

fn facts() -> Facts {
    Facts {
        store: [6; 16],
        keeps: Retention { token: 86_400, login: 2_592_000 },
        future_iat_tolerance_seconds: 5,
        now_seconds: 1_700_000_001,
        secrets: vec![derived(1).id(), derived(2).id()],
    }
}

fn rows() -> Vec<Row> {
    let ttl = Some(Duration::from_millis(1500));
    vec![
        Row { key: key(1), ends: Ends::All, ttl: None },
        Row { key: key(2), ends: Ends::Before(0), ttl },
        Row { key: key(3), ends: Ends::Before(MAX_BEFORE), ttl: Some(Duration::ZERO) },
    ]
}

fn entries() -> Vec<Entry> {
    rows()
        .into_iter()
        .zip([vec![], vec![7; 30], vec![8; MAX_NOTE_BYTES]])
        .map(|(row, sealed)| Entry { row, sealed })
        .collect()
}

fn contents() -> Vec<Content> {
    let cursor = Cursor::new(vec![3; 530]).unwrap();
    vec![
        Content::Changes { cursor: cursor.clone(), complete_millis: -40, more: true, entries: entries() },
        Content::Changes { cursor: Cursor::default(), complete_millis: 320, more: false, entries: vec![] },
        Content::Anew(cursor),
        Content::Page { rows: rows(), next: Some(key(3)) },
        Content::Page { rows: vec![], next: None },
        Content::Entries(entries()),
    ]
}

fn questions() -> Vec<Question> {
    vec![
        Question::Changes { cursor: Cursor::new(vec![3; 530]).unwrap(), wait: Duration::from_secs(1) },
        Question::Page { cursor: Cursor::default(), after: None },
        Question::Page { cursor: Cursor::new(vec![4; 200]).unwrap(), after: Some(key(9)) },
        Question::Entries(vec![]),
        Question::Entries((0..=255).map(key).collect()),
    ]
}

fn ask(question: &Question) -> (DerivedKeys, Asking, Asked) {
    let ours = derived(1);
    let asking = Asking::new(&ours, [9; 16], NEEDS, question);
    let asked = Asked::read(&[derived(2), ours.clone()], asking.bytes()).unwrap();
    (ours, asking, asked)
}

#[test]
fn questions_and_replies_are_read_back_as_written() {
    for question in questions() {
        let (_, _, asked) = ask(&question);
        assert_eq!((asked.secret(), asked.question()), (1, &question));
    }
    for content in contents() {
        let (ours, asking, asked) = ask(&Question::Page { cursor: Cursor::default(), after: None });
        let reply = Reply { facts: facts(), content };
        let body = asked.reply(&ours, &reply);
        assert_eq!(asking.read_reply(&ours, 200, &body), Ok(Ok(reply)));
    }
    let (ours, asking, asked) = ask(&Question::Page { cursor: Cursor::default(), after: None });
    for trouble in Trouble::ALL {
        let body = asked.trouble(&ours, 503, trouble);
        assert_eq!(asking.read_reply(&ours, 503, &body), Ok(Err(trouble)));
    }
}

#[test]
fn every_changed_or_missing_byte_is_noticed() {
    for content in contents() {
        let (ours, asking, asked) = ask(&Question::Page { cursor: Cursor::default(), after: None });
        let body = asked.reply(&ours, &Reply { facts: facts(), content });
        for at in (0..body.len()).step_by(7) {
            let mut bad = body.clone();
            bad[at] ^= 1;
            assert!(asking.read_reply(&ours, 200, &bad).is_err(), "byte {at}");
            assert!(asking.read_reply(&ours, 200, &body[..at]).is_err(), "cut at {at}");
        }
    }
    for question in questions() {
        let (ours, asking, _) = ask(&question);
        for at in 0..asking.bytes().len() {
            let mut bad = asking.bytes().to_vec();
            bad[at] ^= 1;
            assert!(Asked::read(std::slice::from_ref(&ours), &bad).is_err(), "byte {at}");
        }
    }
}

#[test]
fn a_reply_counts_for_its_own_request_status_and_secret_only() {
    let (ours, asking, asked) = ask(&Question::Page { cursor: Cursor::default(), after: None });
    let content = Content::Page { rows: rows(), next: None };
    let body = asked.reply(&ours, &Reply { facts: facts(), content });
    let replayed = Asking::new(&ours, [8; 16], NEEDS, &Question::Page { cursor: Cursor::default(), after: None });
    assert_eq!(replayed.read_reply(&ours, 200, &body), Err(ReplyError::OtherQuestion), "an old page again");
    assert_eq!(asking.read_reply(&ours, 503, &body), Err(ReplyError::OtherStatus));
    assert_eq!(asking.read_reply(&derived(2), 200, &body), Err(ReplyError::OtherSecret));
    assert_eq!(Asked::read(&[derived(2)], asking.bytes()).unwrap_err(), QuestionError::UnknownSecret);
    // A poll of a filter is no question of a region, also under the same secret.
    let poll = crate::feed::Poll::new(&ours, [9; 16], NEEDS, Duration::ZERO, &Cursor::default());
    assert_eq!(Asked::read(&[ours], poll.bytes()).unwrap_err(), QuestionError::Malformed);
}

#[test]
fn what_is_beyond_the_bounds_is_not_read() {
    let ours = derived(1);
    let (_, asking, asked) = ask(&Question::Page { cursor: Cursor::default(), after: None });
    let read = |row: Row| {
        let body =
            asked.reply(&ours, &Reply { facts: facts(), content: Content::Page { rows: vec![row], next: None } });
        asking.read_reply(&ours, 200, &body)
    };
    let row = Row { key: key(1), ends: Ends::Before(MAX_BEFORE + 1), ttl: None };
    assert_eq!(read(row), Err(ReplyError::Malformed));
    let long = Row { ends: Ends::All, ttl: Some(Duration::MAX), ..row };
    let Ok(Ok(Reply { content: Content::Page { rows, .. }, .. })) = read(long) else { panic!() };
    assert_eq!(rows[0].ttl, Some(Duration::from_millis(MAX_MILLIS)));
    let note = Entry { row: rows[0], sealed: vec![0; MAX_NOTE_BYTES + 1] };
    let body = asked.reply(&ours, &Reply { facts: facts(), content: Content::Entries(vec![note; MAX_ENTRIES + 1]) });
    let Ok(Ok(Reply { content: Content::Entries(entries), .. })) = asking.read_reply(&ours, 200, &body) else {
        panic!()
    };
    assert!(entries.len() == MAX_ENTRIES && entries.iter().all(|entry| entry.sealed.is_empty()));
    let most = Question::Entries(vec![key(1); MAX_ENTRIES]);
    assert!(Asking::new(&ours, [1; 16], NEEDS, &most).bytes().len() <= MAX_REQUEST_BYTES);
}
