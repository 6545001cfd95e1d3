//! Startup parameters that follow their client, and reported values.

use weir_session::Mode;

use crate::stage::scene;
use crate::words::*;

#[test]
fn the_difference_goes_in_front_of_the_first_message() {
    scene(|stage| {
        let paris = stage.client_with(Mode::Transaction, &[("TimeZone", "Europe/Paris"), ("user", "u")]);
        stage.client_sends(paris, query("BEGIN"));
        stage.server_got(
            "Q:BEGIN;SELECT pg_catalog.set_config('timezone','Europe/Paris',false);COMMIT;  Q:BEGIN",
        );
        stage.replies("T:set_config  D:Europe/Paris  C:SELECT 1  S:TimeZone=Europe/Paris  Z:I  C:BEGIN  Z:T");
        stage.that_client_got(paris, "S:TimeZone=Europe/Paris  C:BEGIN  Z:T");
        stage.client_sends(paris, query("COMMIT"));
        stage.replies("C:COMMIT  Z:I");
        stage.that_client_got(paris, "C:COMMIT  Z:I");
        stage.servers[0].got.clear();
        // The same client again: nothing to do.
        stage.client_sends(paris, query("select 1"));
        stage.server_got("Q:select 1");
        stage.replies("C:SELECT 1  Z:I");
        // Another one: back.
        stage.sends(query("select 2"));
        stage.server_got("Q:RESET \"timezone\";  Q:select 2");
        stage.replies("C:RESET  S:TimeZone=UTC  Z:I  C:SELECT 1  Z:I");
        stage.client_got("S:TimeZone=UTC  C:SELECT 1  Z:I");
    });
}

#[test]
fn a_change_while_idle_is_news_at_the_next_checkout() {
    scene(|stage| {
        stage.replies("S:TimeZone=UTC  N:00000  S:in_hot_standby=on");
        stage.sends(query("select 1"));
        stage.client_got("S:TimeZone=UTC");
    });
}

#[test]
fn in_hot_standby_is_weirs_own_answer() {
    scene(|stage| {
        stage.sends(query("select 1"));
        stage.replies("S:in_hot_standby=on  C:SELECT 1  Z:I");
        stage.client_got("C:SELECT 1  Z:I");
    });
}

#[test]
fn parameters_that_postgresql_refuses() {
    scene(|stage| {
        let wrong = stage.client_with(Mode::Transaction, &[("TimeZone", "Mars/Base")]);
        stage.client_sends(wrong, query("select 1"));
        stage.replies("E:22023  Z:I");
        stage.that_client_got(wrong, "");
        stage.ended(wrong, "22023");
        assert!(!stage.servers[0].alive, "nobody gets a connection in this state");
    });
}

#[test]
fn a_connection_that_dies_while_parameters_are_applied() {
    scene(|stage| {
        let paris = stage.client_with(Mode::Transaction, &[("TimeZone", "Europe/Paris")]);
        stage.client_sends(paris, query("insert into t values (1)"));
        stage.replies("T:set_config  D:Europe/Paris  FATAL:57P01");
        stage.that_client_got(paris, "");
        let elsewhere = stage.server();
        stage.resume();
        stage.that_server_got(
            elsewhere,
            "Q:BEGIN;SELECT pg_catalog.set_config('timezone','Europe/Paris',false);COMMIT;  Q:insert into t values (1)",
        );
    });
}

#[test]
fn session_mode_gets_its_parameters_too() {
    scene(|stage| {
        let paris = stage.client_with(Mode::Session, &[("TimeZone", "Europe/Paris")]);
        stage.client_sends(paris, query("select 1"));
        stage.replies(
            "T:set_config  D:Europe/Paris  C:SELECT 1  S:TimeZone=Europe/Paris  Z:I  C:SELECT 1  Z:I",
        );
        stage.that_client_got(paris, "S:TimeZone=Europe/Paris  C:SELECT 1  Z:I");
    });
}
