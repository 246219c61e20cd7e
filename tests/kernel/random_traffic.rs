//! Random traffic on many tunnels of one proxy at once: nothing lost, repeated or
//! reordered, no byte stuck, every end as it was meant.
//!
//! `UNDERPASS_RANDOM_SECONDS` is the time that each of the five engines gets (CI: 24, two
//! minutes in all; by hand 1800 and one test), `UNDERPASS_RANDOM_SEED` plays a seed's
//! scripts again. A failure prints the seed, the tunnel, the offset and what `/tunnels`
//! said of it meanwhile.

use std::{fmt::Write as _, sync::Arc};

use mantra_macros::req_test;
use underpass_tests::{
    Bed, Engine, Origin, Proxy,
    bed::NARROW,
    over_all_engines,
    traffic::{Settings, Slot, history::History, run},
    tunnel::Way,
};

over_all_engines!(every_byte_is_where_it_belongs);

/// Seconds for each engine where nobody asks for more.
const SECONDS: u64 = 5;

/// Tunnels at once.
const SLOTS: usize = 40;

#[req_test("REQ-TUN-001", "REQ-TUN-002", "REQ-TUN-004")]
async fn every_byte_is_where_it_belongs(engine: Engine) {
    let settings = Settings::from_env(SECONDS);
    println!("{engine}: seed {}, {:?}", settings.seed, settings.duration);
    let beds: Vec<_> = Bed::all().into_iter().map(Arc::new).collect();
    let places: Vec<_> = (0..SLOTS).map(|number| Place::new(&beds, number)).collect();
    let proxy = Arc::new(Proxy::config(configuration(&beds, &places)).splice(engine).start());
    let slots = places.into_iter().map(|place| place.slot(&proxy)).collect();

    let (history, watching) = History::watch(proxy.clone());
    let sum = match run(slots, settings, Some(history.clone())).await {
        Ok(sum) => sum,
        Err(failure) => panic!("{engine}, seed {}: {failure}", settings.seed),
    };
    drop(watching);
    println!("{engine}: {sum}");
    println!("{engine}: moved by {:?}, {} changes", history.names(), history.changes());

    proxy.until_tunnels(0).await;
    let metrics = proxy.metrics().await;
    for (direction, (sent, read)) in [("up", sum.up), ("down", sum.down)] {
        let counted = metrics.sum("underpass_tunnel_bytes_total", &[("direction", direction)]);
        let possible = read as f64..=sent as f64;
        assert!(possible.contains(&counted), "{direction}: counted {counted} of {possible:?}");
    }
    let names = history.names();
    let expected = beds.iter().filter_map(|bed| bed.engines(engine)).flatten();
    for name in expected {
        assert!(names.contains(name), "nothing was moved by {name}: {names:?}");
    }
}

/// A slot whose listener has no port yet.
struct Place {
    number: usize,
    /// Its bed, and the number of that.
    bed: (Arc<Bed>, usize),
    way: Way,
    origin: Origin,
}

impl Place {
    fn new(beds: &[Arc<Bed>], number: usize) -> Self {
        let at = number % beds.len();
        let bed = beds[at].clone();
        let way = Way::ALL[number / beds.len() % Way::ALL.len()];
        let origin = bed.origin(number.is_multiple_of(7).then_some(NARROW));
        Self { number, bed: (bed, at), way, origin }
    }

    fn slot(self, proxy: &Proxy) -> Slot {
        let Self { number, bed: (bed, at), way, origin } = self;
        let target = bed.target(&origin);
        let (listener, request) = match way {
            Way::Connect => (format!("forward-{at}"), way.request_to(target)),
            Way::Upgrade => {
                let request = way.request_to(target).replace("/tunnel", &format!("/{number}"));
                (format!("web-{at}"), request)
            }
            Way::Tcp => (format!("tcp-{number}"), String::new()),
        };
        Slot { listener: proxy.listener(&listener), bed, origin, way: Some(way), request }
    }
}

/// Two listeners for each bed, one for each slot that is plain TCP, and a route for each
/// slot that needs one.
fn configuration(beds: &[Arc<Bed>], places: &[Place]) -> String {
    let mut text = "workers = 2\n[admin]\naddress = \"127.0.0.1:0\"\n".to_owned();
    for (at, bed) in beds.iter().enumerate() {
        let address = bed.listen();
        let _ = write!(
            text,
            "[[listener]]\nname = \"web-{at}\"\naddress = \"{address}\"\n\
             [[listener]]\nname = \"forward-{at}\"\naddress = \"{address}\"\n\
             protocol = \"forward\"\n"
        );
    }
    for Place { number, bed: (bed, at), way, origin } in places {
        let target = bed.target(origin);
        let route = match way {
            Way::Connect => continue,
            Way::Upgrade => format!("listener = \"web-{at}\"\npath_prefix = \"/{number}\""),
            Way::Tcp => {
                let address = bed.listen();
                let _ = write!(
                    text,
                    "[[listener]]\nname = \"tcp-{number}\"\naddress = \"{address}\"\n\
                     protocol = \"tcp\"\n"
                );
                format!("listener = \"tcp-{number}\"")
            }
        };
        let _ = write!(
            text,
            "[[route]]\n{route}\nupstream = \"slot-{number}\"\n\
             [[upstream]]\nname = \"slot-{number}\"\nservers = [\"{target}\"]\n"
        );
    }
    text
}
