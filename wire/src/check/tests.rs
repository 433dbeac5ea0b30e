use super::*;
use crate::{Kind, Secret};

fn derived(byte: u8) -> DerivedKeys {
    Secret::new(&[byte; 32]).unwrap().derive()
}

fn keys(n: u8) -> Vec<RevocationKey> {
    (0..n).map(|i| RevocationKey([i; 16])).collect()
}

const NEEDS: Needs = Needs { future_iat_tolerance_seconds: 7, now_seconds: 1_700_000_000 };
const KEEPS: Retention = Retention { token: 86_400, login: 2_592_000 };

fn exchange(answers: &[Answer]) -> (DerivedKeys, Question, Vec<u8>) {
    let ours = derived(1);
    let question = Question::new(&ours, [9; 16], NEEDS, &keys(answers.len() as u8)).unwrap();
    let secrets = [derived(2), ours.clone()];
    let asked = Asked::read(&secrets, question.bytes()).unwrap();
    assert_eq!((asked.secret(), asked.needs()), (1, NEEDS));
    assert_eq!(asked.keys(), keys(answers.len() as u8));
    let reply = asked.answers(&secrets[1], KEEPS, answers, &[]);
    (ours, question, reply)
}

const MIXED: [Answer; 3] = [Answer::Live, Answer::Before(1_700_000_000), Answer::Dead];

#[test]
fn answers_come_back_in_order() {
    let (ours, question, reply) = exchange(&MIXED);
    assert_eq!(
        question.read_reply(&ours, 200, &reply),
        Ok(Ok(Reply { keeps: KEEPS, regions: RegionsMoment::UNKNOWN, answers: MIXED.to_vec(), claims: vec![] }))
    );
}

#[test]
fn trouble_comes_back_with_its_own_status() {
    let ours = derived(1);
    let question = Question::new(&ours, [9; 16], NEEDS, &keys(1)).unwrap();
    let asked = Asked::read(std::slice::from_ref(&ours), question.bytes()).unwrap();
    for error in StoreError::ALL {
        let reply = asked.error(&ours, 503, error);
        assert_eq!(question.read_reply(&ours, 503, &reply), Ok(Err(error)));
        assert_eq!(question.read_reply(&ours, 200, &reply), Err(ReplyError::OtherStatus));
    }
}

#[test]
fn every_changed_byte_of_a_reply_is_noticed() {
    let (ours, question, reply) = exchange(&MIXED);
    for at in 0..reply.len() {
        let mut bad = reply.clone();
        bad[at] ^= 1;
        assert!(question.read_reply(&ours, 200, &bad).is_err(), "byte {at}");
        assert!(question.read_reply(&ours, 200, &reply[..at]).is_err(), "cut at {at}");
    }
    let mut longer = reply.clone();
    longer.push(0);
    assert!(question.read_reply(&ours, 200, &longer).is_err());
    assert_eq!(question.read_reply(&ours, 200, b""), Err(ReplyError::Malformed));
}

#[test]
fn every_changed_byte_of_a_question_is_noticed() {
    let ours = derived(1);
    let question = Question::new(&ours, [9; 16], NEEDS, &keys(2)).unwrap();
    for at in 0..question.bytes().len() {
        let mut bad = question.bytes().to_vec();
        bad[at] ^= 1;
        assert!(Asked::read(std::slice::from_ref(&ours), &bad).is_err(), "byte {at}");
    }
}

#[test]
fn a_reply_to_an_earlier_question_is_refused_even_for_the_same_keys() {
    let (ours, _, reply) = exchange(&MIXED);
    let again = Question::new(&ours, [8; 16], NEEDS, &keys(3)).unwrap();
    assert_eq!(again.read_reply(&ours, 200, &reply), Err(ReplyError::OtherQuestion));
}

#[test]
fn a_question_cannot_be_reflected_as_its_own_reply() {
    let (ours, question, _) = exchange(&MIXED);
    assert_eq!(question.read_reply(&ours, 200, question.bytes()), Err(ReplyError::Malformed));
}

#[test]
fn a_wrong_count_or_an_unknown_answer_is_refused_though_signed() {
    let ours = derived(1);
    let question = Question::new(&ours, [9; 16], NEEDS, &keys(2)).unwrap();
    let asked = Asked::read(std::slice::from_ref(&ours), question.bytes()).unwrap();
    let short = asked.answers(&ours, KEEPS, &[Answer::Live], &[]);
    assert_eq!(question.read_reply(&ours, 200, &short), Err(ReplyError::Answers));
    let mut odd = asked.begin(&ours, 200, 0, 0);
    odd.extend_from_slice(&[0; 8]);
    odd.extend_from_slice(&[0, 2, 0, 3]);
    let odd = sign_reply(&ours, odd);
    assert_eq!(question.read_reply(&ours, 200, &odd), Err(ReplyError::Answers));
}

#[test]
fn a_question_takes_one_key_to_the_most_and_no_more() {
    let ours = derived(1);
    assert_eq!(Question::new(&ours, [0; 16], NEEDS, &[]).unwrap_err(), QuestionError::Count);
    let most = vec![RevocationKey([0; 16]); MAX_KEYS + 1];
    assert_eq!(Question::new(&ours, [0; 16], NEEDS, &most).unwrap_err(), QuestionError::Count);
    let question = Question::new(&ours, [0; 16], NEEDS, &most[..MAX_KEYS]).unwrap();
    assert_eq!(question.bytes().len(), MAX_BYTES_WITHOUT_PROOFS);
    assert!(Asked::read(&[ours], question.bytes()).is_ok());
}

#[test]
fn another_secret_is_told_apart_from_a_forgery() {
    let (_, question, reply) = exchange(&MIXED);
    assert_eq!(question.read_reply(&derived(3), 200, &reply), Err(ReplyError::OtherSecret));
    assert_eq!(Asked::read(&[derived(3)], question.bytes()).unwrap_err(), QuestionError::UnknownSecret);
}

fn named(issuer: &str, token: u32) -> NamedIssuer {
    NamedIssuer { issuer: issuer.into(), needs: Retention { token, login: 2 * token }, kinds: Kinds::of([Kind::User]) }
}

#[test]
fn issuers_are_told_in_questions_of_their_own_and_answered_with_what_is_kept() {
    let ours = derived(1);
    let issuers = [named("https://idp.example.com", 600), named("é", 5)];
    let question = Question::about_issuers(&ours, [9; 16], NEEDS, &issuers).unwrap();
    let asked = Asked::read(std::slice::from_ref(&ours), question.bytes()).unwrap();
    assert_eq!((asked.issuers(), asked.keys()), (issuers.as_slice(), [].as_slice()));
    let reply = asked.answers(&ours, KEEPS, &[], &[]);
    assert_eq!(
        question.read_reply(&ours, 200, &reply),
        Ok(Ok(Reply { keeps: KEEPS, regions: RegionsMoment::UNKNOWN, answers: vec![], claims: vec![] }))
    );
    for at in 0..question.bytes().len() {
        let mut bad = question.bytes().to_vec();
        bad[at] ^= 1;
        assert!(Asked::read(std::slice::from_ref(&ours), &bad).is_err(), "byte {at}");
    }
}

#[test]
fn many_issuers_take_several_questions_and_a_bad_one_is_refused() {
    let ours = derived(1);
    let longest = "i".repeat(MAX_ISSUER_BYTES);
    let issuers = vec![named(&longest, 1); 256];
    let pieces = pieces(&issuers);
    assert_eq!(pieces.iter().map(|piece| piece.len()).sum::<usize>(), 256);
    for piece in pieces {
        let question = Question::about_issuers(&ours, [9; 16], NEEDS, piece).unwrap();
        assert!(question.bytes().len() <= MAX_QUESTION_BYTES);
        assert_eq!(Asked::read(std::slice::from_ref(&ours), question.bytes()).unwrap().issuers(), piece);
    }
    for bad in [named("", 1), named(&"i".repeat(MAX_ISSUER_BYTES + 1), 1)] {
        assert_eq!(Question::about_issuers(&ours, [9; 16], NEEDS, &[bad]).unwrap_err(), QuestionError::Issuers);
    }
    assert_eq!(Question::about_issuers(&ours, [9; 16], NEEDS, &issuers).unwrap_err(), QuestionError::Issuers);
}

#[test]
fn what_is_kept_covers_what_is_needed_only_if_it_does_for_tokens_and_for_logins() {
    let of = |token, login| Retention { token, login };
    assert!(of(5, 9).covers(of(5, 9)) && of(5, 9).covers(of(0, 0)));
    assert!(!of(5, 9).covers(of(6, 0)) && !of(5, 9).covers(of(0, 10)));
}

#[test]
fn proofs_are_claimed_with_keys_or_without() {
    let ours = derived(1);
    let proofs = [UsedProof { digest: [3; 16], seconds: 90 }, UsedProof { digest: [4; 16], seconds: 1 }];
    for count in [0, 2] {
        let question = Question::with_proofs(&ours, [9; 16], NEEDS, &keys(count), &proofs).unwrap();
        let asked = Asked::read(std::slice::from_ref(&ours), question.bytes()).unwrap();
        assert_eq!((asked.keys(), asked.proofs()), (keys(count).as_slice(), proofs.as_slice()));
        let (answers, claims) = (vec![Answer::Live; count.into()], vec![Claimed::First, Claimed::Again]);
        let reply = asked.answers(&ours, KEEPS, &answers, &claims);
        assert_eq!(
            question.read_reply(&ours, 200, &reply),
            Ok(Ok(Reply { keeps: KEEPS, regions: RegionsMoment::UNKNOWN, answers: answers.clone(), claims }))
        );
        for claims in [&[][..], &[Claimed::First], &[Claimed::First; 3]] {
            let reply = asked.answers(&ours, KEEPS, &answers, claims);
            assert_eq!(question.read_reply(&ours, 200, &reply), Err(ReplyError::Answers));
        }
        let error = asked.error(&ours, 503, StoreError::StoreSlow);
        assert_eq!(question.read_reply(&ours, 503, &error), Ok(Err(StoreError::StoreSlow)));
    }
    for (keys, proofs) in [(keys(1), vec![]), (keys(1), vec![proofs[0]; MAX_PROOFS + 1])] {
        assert!(Question::with_proofs(&ours, [9; 16], NEEDS, &keys, &proofs).is_err());
    }
    let largest =
        Question::with_proofs(&ours, [9; 16], NEEDS, &vec![RevocationKey([1; 16]); MAX_KEYS], &[proofs[0]; MAX_PROOFS]);
    let largest = largest.unwrap();
    assert_eq!(largest.bytes().len(), MAX_QUESTION_BYTES);
    assert!(Asked::read(std::slice::from_ref(&ours), largest.bytes()).is_ok());
}

#[test]
fn a_moment_of_regions_comes_back_if_it_was_asked_for_and_is_under_the_mac() {
    let ours = derived(1);
    let moments = [RegionsMoment::UNKNOWN, RegionsMoment::of(0), RegionsMoment::of(-1500), RegionsMoment::of(i32::MAX)];
    for moment in moments {
        let question = Question::new(&ours, [9; 16], NEEDS.asking_about_regions(), &keys(3)).unwrap();
        let asked = Asked::read(std::slice::from_ref(&ours), question.bytes()).unwrap();
        assert!(asked.asks_about_regions());
        assert_eq!(asked.needs(), NEEDS, "the tolerance is as before");
        let reply = asked.with_regions(moment).answers(&ours, KEEPS, &MIXED, &[]);
        let read = question.read_reply(&ours, 200, &reply).unwrap().unwrap();
        assert_eq!((read.regions, read.keeps, read.answers), (moment, KEEPS, MIXED.to_vec()));
        for at in 0..reply.len() {
            let mut reply = reply.clone();
            reply[at] ^= 1;
            assert!(question.read_reply(&ours, 200, &reply).is_err(), "byte {at}");
        }
    }
    let question = Question::new(&ours, [9; 16], NEEDS, &keys(3)).unwrap();
    let asked = Asked::read(std::slice::from_ref(&ours), question.bytes()).unwrap();
    let without = asked.answers(&ours, KEEPS, &MIXED, &[]);
    assert!(!asked.asks_about_regions());
    assert_eq!(asked.with_regions(RegionsMoment::of(5)).answers(&ours, KEEPS, &MIXED, &[]), without, "not asked for");
}
