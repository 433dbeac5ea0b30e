use super::*;

#[test]
fn a_kept_connection_is_not_ended_for_others_and_only_a_few_are_kept() {
    let connections = Arc::new(Unauthenticated::default());
    let address = |last| IpAddr::from([10, 0, 0, last]);
    let first = connections.enter(address(1), 2).0;
    let protected = first.protect().unwrap();
    assert!(first.protect().is_none(), "protected once");
    let second = connections.enter(address(1), 2).0;
    let others: Vec<_> = (0..4).map(|_| connections.enter(address(1), 2).0).collect();
    assert!(!is_closed(&first) && is_closed(&second));
    while connections.close_oldest_except(&others[3]) {}
    assert!(!is_closed(&first));
    drop(protected);
    assert!(connections.close_oldest_except(&others[3]) && is_closed(&first));
    // Of one address, and in all.
    let mut many = Vec::new();
    for peer in 1..=100 {
        for _ in 0..MAX_PROTECTED_OF_PEER + 1 {
            let connection = connections.enter(address(peer), 1000).0;
            many.extend(connection.protect());
        }
    }
    assert_eq!(many.len(), MAX_PROTECTED);
    assert_eq!(many.iter().filter(|protected| protected.0.peer == address(1)).count(), MAX_PROTECTED_OF_PEER);
    drop(many);
    assert!(connections.lock().protected.is_empty());
}

fn is_closed(connection: &Connection) -> bool {
    let mut notified = std::pin::pin!(connection.0.makes_room.notified());
    notified.as_mut().enable()
}

#[test]
fn one_more_unauthenticated_connection_of_an_address_ends_its_oldest() {
    let connections = Arc::new(Unauthenticated::default());
    let one: IpAddr = "192.0.2.1".parse().unwrap();
    let (first, _) = connections.enter(one, 2);
    let (second, _) = connections.enter(one, 2);
    let (other, made_room) = connections.enter("192.0.2.2".parse().unwrap(), 2);
    assert!(!made_room && !is_closed(&first));
    let (third, made_room) = connections.enter(one, 2);
    assert!(made_room && is_closed(&first) && !is_closed(&second) && !is_closed(&other));
    // An authenticated one takes no room, and is never ended.
    second.authenticate();
    second.authenticate();
    let (fourth, made_room) = connections.enter(one, 2);
    assert!(!made_room && !is_closed(&second) && !is_closed(&third));
    drop((first, second, third, fourth, other));
    assert!(connections.lock().by_peer.is_empty());
}

#[test]
fn the_oldest_of_all_makes_room_and_never_the_new_one() {
    let connections = Arc::new(Unauthenticated::default());
    let (first, _) = connections.enter("192.0.2.1".parse().unwrap(), 9);
    let (second, _) = connections.enter("192.0.2.2".parse().unwrap(), 9);
    let (new, _) = connections.enter("192.0.2.1".parse().unwrap(), 9);
    assert!(connections.close_oldest_except(&new) && is_closed(&first) && !is_closed(&second));
    assert!(connections.close_oldest_except(&new) && is_closed(&second));
    assert!(!connections.close_oldest_except(&new) && !is_closed(&new));
}

#[test]
fn addresses_of_one_ipv6_network_count_together() {
    let connections = Arc::new(Unauthenticated::default());
    let (_first, _) = connections.enter("2001:db8::1".parse().unwrap(), 1);
    let (_second, made_room) = connections.enter("2001:db8::2".parse().unwrap(), 1);
    assert!(made_room);
    assert!(!connections.enter("2001:db8:0:1::2".parse().unwrap(), 1).1);
    let (_mapped, _) = connections.enter("::ffff:192.0.2.1".parse().unwrap(), 1);
    assert!(connections.enter("192.0.2.1".parse().unwrap(), 1).1);
}
