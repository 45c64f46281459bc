"""Functions of `ipaddress` as tools: addresses of computers and their networks."""

import ipaddress
from random import Random

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import Kind, made_by, whole_number, write_plain


def draw_address(rng: Random) -> str:
    start = rng.choice(("10", "172.16", "192.168", "203.0.113", "198.51.100")).split(".")
    return ".".join([*start, *(str(rng.randint(1, 250)) for _ in range(4 - len(start)))])


def draw_network(rng: Random) -> str:
    network = ipaddress.ip_network(f"{draw_address(rng)}/{rng.randint(20, 29)}", strict=False)
    return str(network)


ADDRESS = Kind("text", draw_address, write_plain, lambda value: value.count(".") == 3, "address")
NETWORK = Kind(
    "text", draw_network, write_plain, lambda value: "/" in value and "." in value, "network"
)


@asked_for(
    "the number of addresses in {network}",
    """
    + How many addresses does the network {network} have?
    + Count the IP addresses in {network}.
    Our provider gave us {network}. How many addresses is that in all?
    + What is the size of the block {network}, in addresses?
    Can {network} hold all our printers? Tell me how many addresses it has.
    + Number of addresses covered by {network}?
    I rented {network} and pay per address. How many do I pay for?
    + Find out how large {network} is.
    """,
    network=NETWORK,
)
def count_addresses(network: str) -> int:
    """The number of addresses in a network.

    network: the network, e.g. 10.0.0.0/24
    """
    return ipaddress.ip_network(network).num_addresses


@asked_for(
    "the last address of {network}",
    """
    + What is the last address of {network}?
    + Give me the broadcast address of {network}.
    Where does the range {network} end?
    + To which address do I send if all of {network} should hear it?
    The firewall asks for the final address of {network}. Which one?
    + Find the highest address in {network}.
    I know that our subnet is {network}. What is its broadcast address?
    Up to which IP does {network} reach?
    """,
    network=NETWORK,
)
def last_address(network: str) -> str:
    """The last address of a network, to which broadcasts go.

    network: the network, e.g. 10.0.0.0/24
    """
    return str(ipaddress.ip_network(network).broadcast_address)


@asked_for(
    "the network of {address} with a prefix of {prefix} bits",
    """
    In which network is {address} if the prefix is {prefix} bits long?
    + My computer has {address} with a /{prefix} mask. Which network is it in?
    + Find the network that {address} belongs to, prefix length {prefix}.
    The host is {address}, the prefix {prefix}. What is its subnet?
    + Cut {address} down to its /{prefix} network.
    + Give me the subnet around {address} for a {prefix}-bit prefix.
    I have to enter a route for {address} and its neighbours, /{prefix}. Which network do I enter?
    What is the network address, with prefix, of {address}/{prefix}?
    """,
    address=ADDRESS,
    prefix=whole_number(16, 28),
)
def network_of(address: str, prefix: int) -> str:
    """The network in which an address lies.

    address: IP address
    prefix: bits of the network's part
    """
    return str(ipaddress.ip_network(f"{address}/{prefix}", strict=False))


@asked_for(
    "{address} as an integer",
    """
    + Write the IP address {address} as a single integer.
    The database stores addresses as whole numbers. Which number is {address}?
    + Convert {address} to its integer value.
    + What is the numeric value of the address {address}?
    I need {address} as one number, not four.
    + Turn {address} into a 32-bit number.
    Which integer do I search for to find {address} in the log?
    Express {address} as a plain decimal number.
    """,
    address=ADDRESS,
)
def address_to_integer(address: str) -> int:
    """An address as one number.

    address: IP address
    """
    return int(ipaddress.ip_address(address))


@asked_for(
    "the full form of {address}",
    """
    Write out the IPv6 address {address} in full.
    What is {address} without the double colon?
    The form rejects {address}; it wants all eight groups. What do I type?
    Expand {address} to its long form.
    Which address is {address}, with all zeros shown?
    Spell {address} out with four digits in each group.
    I cannot compare shortened addresses. Give me {address} in full length.
    Fill up the zeros in {address}.
    """,
    address=made_by(lambda rng: f"2001:db8::{rng.randrange(1, 65536):x}:{rng.randrange(1, 99):x}"),
)
def expand_ipv6(address: str) -> str:
    """An IPv6 address with all its digits.

    address: IPv6 address
    """
    return ipaddress.IPv6Address(address).exploded


@asked_for(
    "the address {steps} after {address}",
    """
    + Which IP address comes {steps} after {address}?
    The first camera has {address} and the others follow without gaps. What has the one {steps} on?
    + Count up from {address} by {steps}. Where do I land?
    I hand out addresses from {address} upwards and have given {steps} since. Which was the last?
    + Add {steps} to the address {address}.
    The range starts at {address}. Skip {steps} and tell me which one is next.
    Somebody took {address}, so try the machine {steps} higher. How do I reach it?
    + What is {address} plus {steps}, as an address?
    """,
    address=ADDRESS,
    steps=whole_number(2, 300),
)
def address_after(address: str, steps: int) -> str:
    """The address that lies some places further on.

    address: IP address
    steps: how many places
    """
    return str(ipaddress.ip_address(address) + steps)
