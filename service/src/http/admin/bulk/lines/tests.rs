use axum::body::Body;
use futures_util::stream;

use super::*;

async fn lines(chunks: Vec<Vec<u8>>) -> Vec<Option<Vec<u8>>> {
    let body = Body::from_stream(stream::iter(chunks.into_iter().map(Ok::<_, std::io::Error>)));
    let mut lines = Lines::new(body.into_data_stream());
    let mut all = Vec::new();
    loop {
        let (batch, end) = lines.batch().await;
        all.extend(batch.into_iter().map(Result::ok));
        if end.is_some() {
            return all;
        }
    }
}

#[tokio::test]
async fn lines_may_be_cut_anywhere_and_the_last_needs_no_newline() {
    let got = lines(vec![b"a\nb".to_vec(), b"c\n\n".to_vec(), b"d".to_vec()]).await;
    assert_eq!(got, [Some(b"a".to_vec()), Some(b"bc".to_vec()), Some(vec![]), Some(b"d".to_vec())]);
}

#[tokio::test]
async fn a_line_that_is_too_long_is_refused_and_the_next_is_read() {
    let long = vec![b'x'; MAX_BYTES];
    let got = lines(vec![long.clone(), b"y\nz\n".to_vec(), long.clone(), b"\n".to_vec()]).await;
    assert_eq!(got, [None, Some(b"z".to_vec()), Some(long)]);
}

#[tokio::test]
async fn more_lines_than_a_batch_arrive_in_one_piece() {
    assert_eq!(lines(vec![b"\n".repeat(BATCH * 2 + 1)]).await.len(), BATCH * 2 + 1);
}
