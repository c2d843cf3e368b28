//! The program that finds the listener: a dozen decisions in the instruction set of eBPF (RFC 9669).
//!
//! It runs for each first packet of a connection, before the kernel looks for a listener itself, and reads
//! `struct bpf_sk_lookup`. Put together here, it needs neither a compiler nor an object file.

/// One instruction: 8 bytes, in the byte order of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Instruction {
    code: u8,
    to: u8,
    from: u8,
    offset: i16,
    value: i32,
}

/// Places that are jumped to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Label {
    Version6,
    Found,
    Pass,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Do(Instruction),
    /// Jumps there where the register is not the value.
    Unless(u8, i32, Label),
    /// Jumps there where it is.
    If(u8, i32, Label),
    Jump(Label),
    Here(Label),
}

/// Registers: the result and first argument of calls, further arguments, two that survive calls, the stack's end.
const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
const CONTEXT: u8 = 6;
const SOCKET: u8 = 7;
const STACK: u8 = 10;

/// Offsets in `struct bpf_sk_lookup`. Addresses are in network order.
const FAMILY: i16 = 8;
const PROTOCOL: i16 = 12;
const LOCAL_IP4: i16 = 40;
const LOCAL_IP6: [i16; 3] = [44, 48, 52];
const LOCAL_IP6_LAST: i16 = 56;

const AF_INET: i32 = 2;
const AF_INET6: i32 = 10;
const IPPROTO_TCP: i32 = 6;
/// 127.0.0.0/8.
const LOOPBACK_FIRST_OCTET: i32 = 127;

/// `BPF_FUNC_map_lookup_elem`, `BPF_FUNC_sk_release`, `BPF_FUNC_sk_assign`.
const MAP_LOOKUP: i32 = 1;
const SOCKET_RELEASE: i32 = 86;
const SOCKET_ASSIGN: i32 = 124;
/// `BPF_PSEUDO_MAP_FD`: the value is the number of an open map.
const MAP_NUMBER: u8 = 1;
/// `SK_PASS`: with a socket assigned, it is that one; else the kernel looks itself.
const SK_PASS: i32 = 1;

fn load(to: u8, from: u8, offset: i16) -> Step {
    step(0x61, to, from, offset, 0)
}

fn copy(to: u8, from: u8) -> Step {
    step(0xbf, to, from, 0, 0)
}

fn set(to: u8, value: i32) -> Step {
    step(0xb7, to, 0, 0, value)
}

fn add(to: u8, value: i32) -> Step {
    step(0x07, to, 0, 0, value)
}

fn shift_right(to: u8, bits: i32) -> Step {
    step(0x77, to, 0, 0, bits)
}

/// Four bytes in network order as a number.
fn from_network_order(to: u8) -> Step {
    step(0xdc, to, 0, 0, 32)
}

fn call(helper: i32) -> Step {
    step(0x85, 0, 0, 0, helper)
}

fn step(code: u8, to: u8, from: u8, offset: i16, value: i32) -> Step {
    Step::Do(Instruction {
        code,
        to,
        from,
        offset,
        value,
    })
}

/// TCP to 127.0.0.0/8 or ::1 goes to the socket in the map's entry 0; everything else, and everything where there is none, is
/// left to the kernel.
pub(super) fn loopback_to(map: i32) -> Vec<Instruction> {
    let mut steps = vec![
        copy(CONTEXT, R1),
        load(R2, CONTEXT, PROTOCOL),
        Step::Unless(R2, IPPROTO_TCP, Label::Pass),
        load(R2, CONTEXT, FAMILY),
        Step::Unless(R2, AF_INET, Label::Version6),
        load(R2, CONTEXT, LOCAL_IP4),
        from_network_order(R2),
        shift_right(R2, 24),
        Step::Unless(R2, LOOPBACK_FIRST_OCTET, Label::Pass),
        Step::Jump(Label::Found),
        Step::Here(Label::Version6),
        Step::Unless(R2, AF_INET6, Label::Pass),
    ];
    for word in LOCAL_IP6 {
        steps.extend([load(R2, CONTEXT, word), Step::Unless(R2, 0, Label::Pass)]);
    }
    steps.extend([
        load(R2, CONTEXT, LOCAL_IP6_LAST),
        from_network_order(R2),
        Step::Unless(R2, 1, Label::Pass),
        Step::Here(Label::Found),
        // The key, 0, on the stack.
        step(0x62, STACK, 0, -4, 0),
        copy(R2, STACK),
        add(R2, -4),
        // The map's number takes two instructions.
        step(0x18, R1, MAP_NUMBER, 0, map),
        step(0, 0, 0, 0, 0),
        call(MAP_LOOKUP),
        Step::If(R0, 0, Label::Pass),
        copy(SOCKET, R0),
        copy(R1, CONTEXT),
        copy(R2, R0),
        set(R3, 0),
        call(SOCKET_ASSIGN),
        copy(R1, SOCKET),
        call(SOCKET_RELEASE),
        Step::Here(Label::Pass),
        set(R0, SK_PASS),
        step(0x95, 0, 0, 0, 0),
    ]);
    assembled(&steps)
}

fn assembled(steps: &[Step]) -> Vec<Instruction> {
    // How many instructions come before a place.
    let before = |steps: &[Step]| {
        let instructions = steps.iter().filter(|step| !matches!(step, Step::Here(_)));
        i16::try_from(instructions.count()).unwrap_or(i16::MAX)
    };
    let place = |label: Label| {
        let at = steps
            .iter()
            .position(|step| matches!(step, Step::Here(here) if *here == label));
        before(&steps[..at.unwrap_or(steps.len())])
    };
    let one = |(index, step): (usize, &Step)| {
        // From the instruction after the jump.
        let distance = |label| place(label) - before(&steps[..=index]);
        let jump = |code, register, value, label| Instruction {
            code,
            to: register,
            from: 0,
            offset: distance(label),
            value,
        };
        match *step {
            Step::Do(instruction) => Some(instruction),
            Step::Unless(register, value, label) => Some(jump(0x55, register, value, label)),
            Step::If(register, value, label) => Some(jump(0x15, register, value, label)),
            Step::Jump(label) => Some(jump(0x05, 0, 0, label)),
            Step::Here(_) => None,
        }
    };
    steps.iter().enumerate().filter_map(one).collect()
}

/// As the kernel reads them.
pub(super) fn bytes(instructions: &[Instruction]) -> Vec<u8> {
    let one = |instruction: &Instruction| {
        // Two registers in one byte; the order of the halves is the machine's too.
        let registers = if cfg!(target_endian = "little") {
            instruction.to | instruction.from << 4
        } else {
            instruction.to << 4 | instruction.from
        };
        let [offset_0, offset_1] = instruction.offset.to_ne_bytes();
        let [a, b, c, d] = instruction.value.to_ne_bytes();
        [instruction.code, registers, offset_0, offset_1, a, b, c, d]
    };
    instructions.iter().flat_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_jump_leads_forward_to_an_instruction() {
        let program = loopback_to(5);
        let mut jumps = 0;
        for (index, instruction) in program.iter().enumerate() {
            if matches!(instruction.code, 0x05 | 0x15 | 0x55) {
                let target = index + 1 + usize::try_from(instruction.offset).unwrap();
                assert!(target < program.len(), "{index}");
                assert_ne!(program[target].code, 0, "the second half of another");
                jumps += 1;
            }
        }
        assert_eq!(jumps, 10);
        assert_eq!(bytes(&program).len(), program.len() * 8);
    }
}
