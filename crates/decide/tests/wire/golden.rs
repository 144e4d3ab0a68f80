//! The bytes of version 1, one message and one record of each kind. They are a promise: the next version must read them
//! to the same meaning, or a cluster breaks while it is upgraded. When a field is added, keep these and add new ones.

use std::fmt::Write as _;
use std::time::Duration;

use decide::migrate::hypervisor::{CopyParameters, VmDefinition};
use decide::policy::settings::Encryption;
use decide::units::Cost;
use decide::usage::history::aged::AgedHistory;
use decide::usage::history::code::Code;
use decide::usage::history::past::AgedStay;
use decide::usage::history::quarters::{AgedQuarters, Quarter};
use decide::wire;
use decide::wire::message::{Body, Confirmation, Request};
use expect_test::{Expect, expect};

use crate::samples::{
    MOVE, OTHER, aged, bodies, companion, confirmation, definition, message, move_record, request,
    vm_record,
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all");
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let digits =
        text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("hex is ASCII"));
    digits.map(|pair| u8::from_str_radix(pair, 16).expect("hex")).collect()
}

/// Today's bytes are those committed, and those committed still mean the same.
fn check(body: Body, golden: &Expect) {
    let message = message(body);
    golden.assert_eq(&hex(&wire::encode(&message)));
    assert_eq!(wire::decode(&unhex(golden.data())), Ok(message));
}

#[test]
fn messages_of_version_1_are_read() {
    let golden = [
        expect![
            "0a101111111111111111111111111111111112160a101111111111111111111111111111111110031807527308011210aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa1a0477656231220f08dc0b108001188095f52a2090a10f288001321f0a0471656d75120d70632d6934343066782d372e321a0374636722036272303880ecb80b41fecaaddeefbeedfe4a102222222222222222222222222222222250e0c65b"
        ],
        expect![
            "0a101111111111111111111111111111111112160a1011111111111111111111111111111111100318075a0a08ff9aee0210c096b102"
        ],
        expect![
            "0a101111111111111111111111111111111112160a10111111111111111111111111111111111003180762250a236e6f20726f6f6d3a20313238204d69422061736b65642c203634204d69422066726565"
        ],
        expect![
            "0a101111111111111111111111111111111112160a1011111111111111111111111111111111100318076a00"
        ],
        expect![
            "0a101111111111111111111111111111111112160a10111111111111111111111111111111111003180772730a140805121011111111111111111111111111111111124d0a10aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa12047765623118800120022a1f0a0471656d75120d70632d6934343066782d372e321a037463672203627230320d746170203d202274617037220a1a0c0880cab5ee0110a08d061801"
        ],
        expect![
            "0a101111111111111111111111111111111112160a1011111111111111111111111111111111100318077a280a120880897a10011802200328043005380640070a1208c0843d1001180220032804300538064007"
        ],
        expect![
            "0a101111111111111111111111111111111112160a1011111111111111111111111111111111100318078201360880a4e80312180a147463703a3139382e31382e302e323a343931353210011a150a100000000000000000000000000000007710ac02"
        ],
        expect![
            "0a101111111111111111111111111111111112160a1011111111111111111111111111111111100318078a01410a10aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa12140805121011111111111111111111111111111111180122150a100000000000000000000000000000007710ac02"
        ],
        expect![
            "0a101111111111111111111111111111111112160a10111111111111111111111111111111111003180792012a0a10aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa121408051210111111111111111111111111111111111804"
        ],
        expect![
            "0a101111111111111111111111111111111112160a1011111111111111111111111111111111100318079a013f0a10aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa121408051210111111111111111111111111111111111a150a100000000000000000000000000000007710ac02"
        ],
        expect![
            "0a101111111111111111111111111111111112160a101111111111111111111111111111111110031807a201230a10aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa120f08dc0b108001188095f52a2090a10f"
        ],
        expect![
            "0a101111111111111111111111111111111112160a101111111111111111111111111111111110031807aa01140a10aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa1001"
        ],
    ];
    let bodies = bodies();
    assert_eq!(bodies.len(), golden.len());
    for (body, golden) in bodies.into_iter().zip(&golden) {
        check(body, golden);
    }
}

#[test]
fn a_history_with_quarters_and_stays_is_read() {
    let code = |bits| Code::from_bits(bits).expect("a code");
    let quarter = Quarter::from_codes([1, 2, 3, 4, 3775, 6, 7, 8].map(code));
    let age = Duration::from_secs(901);
    let history = AgedHistory {
        samples: vec![aged(1)],
        quarters: AgedQuarters { newest_age: age, rows: vec![Some(quarter), None] },
        past: vec![AgedStay { age, host: OTHER, name: "host2".to_owned(), move_id: MOVE }],
    };
    check(
        Body::History(Box::new(history)),
        &expect![
            "0a101111111111111111111111111111111112160a1011111111111111111111111111111111100318077a770a1208c0843d1001180220032804300538064007122808c0d6d0ad0312200100020003000400bf0e060007000800ffffffffffffffffffffffffffffffff1a3708c0d6d0ad031210222222222222222222222222222222221a05686f73743222160a101111111111111111111111111111111110031807"
        ],
    );
}

#[test]
fn messages_with_tags_are_read() {
    let tags = || ["plb_anti_affinity_web", "plb_pin_host1"].map(str::to_owned).to_vec();
    check(
        Body::Request(Box::new(Request { tags: tags(), ..request() })),
        &expect![
            "0a101111111111111111111111111111111112160a10111111111111111111111111111111111003180752990108011210aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa1a0477656231220f08dc0b108001188095f52a2090a10f288001321f0a0471656d75120d70632d6934343066782d372e321a0374636722036272303880ecb80b41fecaaddeefbeedfe4a102222222222222222222222222222222250e0c65b6215706c625f616e74695f616666696e6974795f776562620d706c625f70696e5f686f737431"
        ],
    );
    let definition = VmDefinition { tags: tags(), ..definition() };
    check(
        Body::Confirmation(Box::new(Confirmation { definition, ..confirmation() })),
        &expect![
            "0a101111111111111111111111111111111112160a1011111111111111111111111111111111100318077299010a14080512101111111111111111111111111111111112730a10aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa12047765623118800120022a1f0a0471656d75120d70632d6934343066782d372e321a037463672203627230320d746170203d202274617037220a3a15706c625f616e74695f616666696e6974795f7765623a0d706c625f70696e5f686f7374311a0c0880cab5ee0110a08d061801"
        ],
    );
}

#[test]
fn a_request_that_overrides_rules_is_read() {
    check(
        Body::Request(Box::new(Request { forced: true, ..request() })),
        &expect![
            "0a101111111111111111111111111111111112160a101111111111111111111111111111111110031807527508011210aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa1a0477656231220f08dc0b108001188095f52a2090a10f288001321f0a0471656d75120d70632d6934343066782d372e321a0374636722036272303880ecb80b41fecaaddeefbeedfe4a102222222222222222222222222222222250e0c65b6801"
        ],
    );
}

#[test]
fn a_request_for_a_group_is_read() {
    let followers = vec![companion()];
    check(
        Body::Request(Box::new(Request { followers, joins: true, ..request() })),
        &expect![
            "0a101111111111111111111111111111111112160a10111111111111111111111111111111111003180752d50108011210aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa1a0477656231220f08dc0b108001188095f52a2090a10f288001321f0a0471656d75120d70632d6934343066782d372e321a0374636722036272303880ecb80b41fecaaddeefbeedfe4a102222222222222222222222222222222250e0c65b82015c0a10000000000000000000000000000000bb1204776562321a0f08dc0b108001188095f52a2090a10f221f0a0471656d75120d70632d6934343066782d372e321a0374636722036272302a10706c625f616666696e6974795f776562880101"
        ],
    );
}

#[test]
fn an_encrypted_copy_is_asked_for_agreed_on_and_confirmed() {
    let encryption = Encryption::Required;
    check(
        Body::Request(Box::new(Request { encryption, ..request() })),
        &expect![
            "0a101111111111111111111111111111111112160a101111111111111111111111111111111110031807527608011210aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa1a0477656231220f08dc0b108001188095f52a2090a10f288001321f0a0471656d75120d70632d6934343066782d372e321a0374636722036272303880ecb80b41fecaaddeefbeedfe4a102222222222222222222222222222222250e0c65b900102"
        ],
    );
    let (cost, reserved) = (Cost::percent(-3), Duration::from_secs(5));
    let agreed = Body::Acceptance { cost, reserved, in_return: None, encrypted: true };
    check(
        agreed,
        &expect![
            "0a101111111111111111111111111111111112160a1011111111111111111111111111111111100318075a0c08ff9aee0210c096b1022001"
        ],
    );
    let copy = CopyParameters { encrypted: true, ..confirmation().copy };
    check(
        Body::Confirmation(Box::new(Confirmation { copy, ..confirmation() })),
        &expect![
            "0a101111111111111111111111111111111112160a10111111111111111111111111111111111003180772750a140805121011111111111111111111111111111111124d0a10aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa12047765623118800120022a1f0a0471656d75120d70632d6934343066782d372e321a037463672203627230320d746170203d202274617037220a1a0e0880cab5ee0110a08d0618012001"
        ],
    );
}

#[test]
fn a_confirmation_that_asks_for_figures_is_read() {
    let asking = Confirmation { unpaid: 3, measured: true, ..confirmation() };
    check(
        Body::Confirmation(Box::new(asking)),
        &expect![
            "0a101111111111111111111111111111111112160a10111111111111111111111111111111111003180772770a140805121011111111111111111111111111111111124d0a10aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa12047765623118800120022a1f0a0471656d75120d70632d6934343066782d372e321a037463672203627230320d746170203d202274617037220a1a0c0880cab5ee0110a08d06180120032801"
        ],
    );
}

#[test]
fn a_confirmation_that_asks_for_the_figures_of_an_hour_is_read() {
    let measured_after = Duration::from_hours(1);
    let asking = Confirmation { measured: true, measured_after, ..confirmation() };
    check(
        Body::Confirmation(Box::new(asking)),
        &expect![
            "0a101111111111111111111111111111111112160a101111111111111111111111111111111110031807727b0a140805121011111111111111111111111111111111124d0a10aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa12047765623118800120022a1f0a0471656d75120d70632d6934343066782d372e321a037463672203627230320d746170203d202274617037220a1a0c0880cab5ee0110a08d06180128013080c8ceb40d"
        ],
    );
}

#[test]
fn records_of_version_1_are_read() {
    let vm = expect![
        "01080610055a2a0a102222222222222222222222222222222212160a101111111111111111111111111111111110031807"
    ];
    vm.assert_eq(&hex(&wire::encode_vm_record(&vm_record())));
    assert_eq!(wire::decode_vm_record(&unhex(vm.data())), Ok(vm_record()));
    let open = expect![
        "010a10aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa121022222222222222222222222222222222180520022a150a100000000000000000000000000000007710ac0230023a4d0a10aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa12047765623118800120022a1f0a0471656d75120d70632d6934343066782d372e321a037463672203627230320d746170203d202274617037220a"
    ];
    open.assert_eq(&hex(&wire::encode_move_record(&move_record())));
    assert_eq!(wire::decode_move_record(&unhex(open.data())), Ok(move_record()));
}
