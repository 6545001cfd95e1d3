//! Logins that are bound to the TLS channel, and what becomes of those that cannot be.

use super::*;

#[test]
fn a_login_is_bound_to_its_channel_where_the_server_can() {
    let bound = ChannelBinding::ServerEndPoint(vec![9; 32]);
    let mut talk = Talk::new(password("pencil"), Fence::None);
    talk.login.bind(Some(vec![9; 32]));
    talk.hear(&bytes(|out| backend::authentication_sasl(&["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"], out)));
    let (mechanism, message) = frontend::read::sasl_initial_response(talk.said_body()).unwrap();
    assert_eq!(mechanism, b"SCRAM-SHA-256-PLUS");
    let (exchange, challenge) =
        server::first(message.unwrap(), verifier(), "def", &bound, Mechanism::Sha256Plus).unwrap();
    talk.hear(&bytes(|out| backend::authentication_sasl_continue(&challenge, out)));
    assert!(exchange.finish(talk.said_body()).is_ok());
}

#[test]
fn where_binding_is_required_nothing_else_will_do() {
    let sasl = |offered: &[&str]| bytes(|out| backend::authentication_sasl(offered, out));
    let plus = ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"];
    for (end_point, asked, expected) in [
        (Some(vec![9; 32]), sasl(&plus), None),
        (None, sasl(&plus), Some("there is no TLS, or no digest in the server's certificate")),
        (Some(vec![9; 32]), sasl(&["SCRAM-SHA-256"]), Some("the server offers SCRAM without it")),
        (Some(vec![9; 32]), ok(), Some("the server asks for something else than SCRAM")),
        (
            Some(vec![9; 32]),
            bytes(backend::authentication_cleartext),
            Some("the server asks for something else than SCRAM"),
        ),
    ] {
        let mut talk = Talk::new(password("pencil"), Fence::None);
        talk.login.bind(end_point);
        talk.login.insist_on_binding();
        match expected {
            None => assert_eq!(talk.hear(&asked), ServerStep::Wait),
            Some(why) => {
                assert_eq!(talk.failed(&asked), LoginFailure::Unbound(why));
                assert!(talk.said.is_empty(), "nothing is shown to it");
            }
        }
    }
}
