//! Options are read back from the sockets.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use weir_config::{Dns, Tcp};
use weir_discovery::Address;

use crate::dial::{self, Dialer};
use crate::listen::{self, tests::nothing};
use crate::resolver::Resolver;
use crate::shell::tests::run;
use crate::socket::Socket;
use crate::tcp;
use crate::tls::tests::no_tls;

fn all_different() -> Tcp {
    Tcp {
        keepalive: true,
        keepalive_count: 7,
        keepalive_idle: Duration::from_secs(41),
        keepalive_interval: Duration::from_secs(13),
        user_timeout: Duration::from_millis(61_234),
        socket_buffer: 40_000,
    }
}

fn seen(socket: &SockRef<'_>) -> Tcp {
    // Linux reserves twice what was asked for (socket(7), SO_RCVBUF).
    let halves = (socket.recv_buffer_size().unwrap() / 2, socket.send_buffer_size().unwrap() / 2);
    assert_eq!(halves.0 == 40_000, halves.1 == 40_000, "{halves:?}");
    assert!(socket.tcp_nodelay().unwrap());
    Tcp {
        keepalive: socket.keepalive().unwrap(),
        keepalive_count: socket.tcp_keepalive_retries().unwrap(),
        keepalive_idle: socket.tcp_keepalive_time().unwrap(),
        keepalive_interval: socket.tcp_keepalive_interval().unwrap(),
        user_timeout: socket.tcp_user_timeout().unwrap().unwrap_or_default(),
        socket_buffer: if halves.0 == 40_000 { 40_000 } else { 0 },
    }
}

// covers: tcp_keepalive tcp_keepcnt tcp_keepidle tcp_keepintvl tcp_user_timeout tcp_socket_buffer
#[test]
fn a_client_s_connection_inherits_every_option() {
    let address = "127.0.0.1:0".parse().unwrap();
    let listener = listen::bind(address, false, &nothing(), &all_different()).unwrap();
    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    listener.set_nonblocking(false).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    assert_eq!(seen(&SockRef::from(&accepted)), all_different());
}

// covers: tcp_keepalive tcp_keepcnt tcp_keepidle tcp_keepintvl tcp_user_timeout tcp_socket_buffer
#[test]
fn so_has_a_connection_to_postgresql() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address { host: "127.0.0.1".to_owned(), port: listener.local_addr().unwrap().port() };
        let dialer = Dialer {
            tls: Arc::new(no_tls()),
            encryption: weir_worker::Encryption::default(),
            tcp: all_different(),
            resolver: Resolver::new(Dns::default()),
        };
        let link = dial::dial(&address, None, &dialer).await.unwrap();
        let Socket::Tcp(stream) = &link.socket else { panic!("{link:?}") };
        assert_eq!(seen(&SockRef::from(stream)), all_different());
    });
}

#[test]
fn a_reload_changes_what_later_connections_inherit() {
    let address = "127.0.0.1:0".parse().unwrap();
    let listener = listen::bind(address, false, &nothing(), &all_different()).unwrap();
    let off = Tcp { keepalive: false, user_timeout: Duration::ZERO, ..all_different() };
    tcp::set_anew(&SockRef::from(&listener), &off).unwrap();
    assert_eq!(seen(&SockRef::from(&listener)), off);
    let own = Tcp {
        keepalive_count: 0,
        keepalive_idle: Duration::ZERO,
        keepalive_interval: Duration::ZERO,
        ..all_different()
    };
    tcp::set_anew(&SockRef::from(&listener), &own).unwrap();
    let fresh = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let expected = Tcp {
        keepalive_count: fresh.tcp_keepalive_retries().unwrap(),
        keepalive_idle: fresh.tcp_keepalive_time().unwrap(),
        keepalive_interval: fresh.tcp_keepalive_interval().unwrap(),
        ..all_different()
    };
    assert_eq!(seen(&SockRef::from(&listener)), expected, "what is 0 is the system's own again");
}

#[test]
fn without_a_value_the_system_s_own_holds() {
    let fresh = || socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let (touched, untouched) = (fresh(), fresh());
    let nothing = Tcp {
        keepalive: false,
        keepalive_count: 0,
        keepalive_idle: Duration::ZERO,
        keepalive_interval: Duration::ZERO,
        user_timeout: Duration::ZERO,
        socket_buffer: 0,
    };
    tcp::set(&SockRef::from(&touched), &nothing).unwrap();
    untouched.set_tcp_nodelay(true).unwrap();
    assert_eq!(seen(&SockRef::from(&touched)), seen(&SockRef::from(&untouched)));
    assert_eq!(touched.send_buffer_size().unwrap(), untouched.send_buffer_size().unwrap());
}
