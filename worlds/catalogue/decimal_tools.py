"""Functions of `decimal` as tools: money and rounding, without the errors of binary fractions."""

from decimal import ROUND_HALF_UP, Decimal, InvalidOperation

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import decimal, whole_number

CENT = Decimal("0.01")
PRICE = decimal(5, 400, 2)
PERCENT = whole_number(3, 45)


def rounded(value: Decimal, unit: Decimal = CENT) -> float:
    """To the nearest unit, halves up. Raises ValueError for what is too large."""
    try:
        return float(value.quantize(unit, ROUND_HALF_UP))
    except InvalidOperation:
        raise ValueError("the number has too many digits") from None


@asked_for(
    "{price} plus {percent} percent",
    """
    + What is {price} plus {percent} percent?
    The net price is {price} and tax is {percent}%. What do I pay?
    + Add {percent}% to {price}.
    Rent is {price} and goes up by {percent} percent. What will it be?
    + Raise {price} by {percent}%.
    The meal was {price}; with a tip of {percent} percent, how much is that?
    I resell for {percent}% more than the {price} I paid. At which price?
    With {percent}% VAT on top, how much is {price}?
    """,
    price=PRICE,
    percent=PERCENT,
)
def add_percent(price: float, percent: int) -> float:
    """A price raised by a percentage, in cents.

    price: the price
    percent: what is added, in percent
    """
    return rounded(Decimal(str(price)) * (100 + percent) / 100)


@asked_for(
    "{price} less {percent} percent",
    """
    + What is {price} less {percent} percent?
    A coat costs {price}, now with {percent}% off. What is the new price?
    + Take {percent}% off {price}.
    My ticket is {price} and students get {percent} percent discount. How much do I pay?
    + Lower {price} by {percent}%.
    The dealer gives {percent} percent rebate on {price}. What is left to pay?
    With a voucher for {percent}% off, how much is {price}?
    Sale! {percent} percent down from {price}. Which price is that?
    """,
    price=PRICE,
    percent=PERCENT,
)
def subtract_percent(price: float, percent: int) -> float:
    """A price lowered by a percentage, in cents.

    price: the price
    percent: what is taken off, in percent
    """
    return rounded(Decimal(str(price)) * (100 - percent) / 100)


@asked_for(
    "the share of each of {people} people in {total}",
    """
    + Split {total} evenly among {people} people. How much is each share?
    The bill comes to {total} and we are {people}. What does everyone pay?
    {people} friends bought a present for {total}. How much per head?
    + Divide {total} by {people} people, to the cent.
    We share the taxi, {total} for {people} of us. My part?
    + What is one share if {total} is shared by {people}?
    Our flat has {people} tenants and the heating cost {total}. How much for each?
    Dinner was {total}. There were {people} of us, all paying the same. How much?
    """,
    total=decimal(20, 900, 2),
    people=whole_number(3, 12),
)
def split_bill(total: float, people: int) -> float:
    """The equal share of each person, in cents.

    total: what is to be paid
    people: how many pay
    """
    if people < 1:
        raise ValueError("there must be somebody to pay")
    return rounded(Decimal(str(total)) / people)


@asked_for(
    "{number} rounded to {places} decimal places",
    """
    + Round {number} to {places} decimal places.
    + What is {number} with {places} digits after the point?
    The form has room for {places} decimals. What do I enter for {number}?
    + Give {number} to {places} decimal places, halves up.
    My scale says {number}. Rounded to {places} places, what is that?
    + Shorten {number} to {places} decimals, properly rounded.
    For the report, {number} should have {places} decimal places.
    Cut the tail off {number}: {places} places, rounded, are plenty.
    """,
    number=decimal(0.1, 90, 5),
    places=whole_number(2, 4),
)
def round_to(number: float, places: int) -> float:
    """Round to some decimal places, halves up.

    number: the number
    places: decimal places, up to 12
    """
    if not 0 <= places <= 12:
        raise ValueError("places must be from 0 to 12")
    return rounded(Decimal(str(number)), Decimal(1).scaleb(-places))


@asked_for(
    "{percent} percent of {amount}",
    """
    + How much is {percent}% of {amount}?
    The bill says {amount} and the waiter deserves {percent} percent. How large is the tip?
    + Work out {percent} percent of {amount}.
    An agent sold my car for {amount} and keeps {percent}%. What does she get?
    I earn {amount} and put {percent}% of it aside. Which sum goes to the piggy bank?
    + From {amount}, the part that is {percent}%.
    We pay a deposit of {percent}% on a holiday for {amount}. What do they want now?
    My boss promised {percent} percent of a sale of {amount} as a bonus. What may I hope for?
    """,
    amount=PRICE,
    percent=PERCENT,
)
def percent_of(amount: float, percent: int) -> float:
    """A percentage of an amount by itself, in cents.

    amount: the whole
    percent: the part, in percent
    """
    return rounded(Decimal(str(amount)) * percent / 100)


@asked_for(
    "the proceeds of changing {amount} at a rate of {rate}",
    """
    I change {amount} euros at {rate} dollars to the euro. How many dollars do I get?
    + Convert {amount} into another currency; the exchange rate is {rate}.
    A hotel in London costs {amount} pounds and one pound is {rate} euros. What is it in euros?
    + What is {amount} worth abroad when the rate is {rate}?
    The bank gives {rate} francs for each of my {amount} crowns. How many francs are they?
    + At {rate} for one, what do I get for {amount}?
    My cousin sends {amount} dollars. With today's rate of {rate}, what arrives here?
    + The board at the airport says {rate}. I hand over {amount}. How much comes back, to the cent?
    """,
    amount=PRICE,
    rate=decimal(0.2, 3, 4),
)
def convert_currency(amount: float, rate: float) -> float:
    """Money changed into money of another country, in cents.

    amount: what is changed
    rate: what one unit of it is worth there
    """
    return rounded(Decimal(str(amount)) * Decimal(str(rate)))


@asked_for(
    "the balance of {amount} after {years} years at {percent} percent",
    """
    I leave {amount} in the bank at {percent}% a year. What is in the account after {years} years?
    Grandma put {amount} away for me {years} years ago, with {percent}% interest. What is it now?
    + With compound interest of {percent}%, what becomes of {amount} in {years} years?
    A loan of {amount} grows by {percent} percent a year. Unpaid for {years} years, what is it?
    + {amount} at {percent}% for {years} years, interest on interest: how much is that?
    A bond over {amount} yields {percent}% yearly. I wait {years} years. What do I get paid?
    The savings book opens with {amount}. Add {percent} percent each year, {years} years long.
    + How large is a deposit of {amount} once {percent}% a year was added for {years} years?
    """,
    amount=decimal(100, 5000, 2),
    percent=decimal(0.5, 7),
    years=whole_number(2, 20),
)
def savings_after(amount: float, percent: float, years: int) -> float:
    """Money with the interest of some years, compounded yearly, in cents.

    amount: the money at the start
    percent: interest in a year
    years: how many years
    """
    if not 0 <= years <= 200 or not -100 <= percent <= 1000:
        raise ValueError("years must be from 0 to 200, percent from -100 to 1000")
    return rounded(Decimal(str(amount)) * (1 + Decimal(str(percent)) / 100) ** years)


@asked_for(
    "each of {months} instalments for {price} after {deposit} down",
    """
    A sofa for {price}: {deposit} now, the rest in {months} equal payments. How much is each?
    I pay {deposit} down on a bike of {price} and the rest over {months} months. What per month?
    + The price is {price}, the down payment {deposit}. What are the {months} instalments?
    We owe {price}, have paid {deposit}, and have {months} months left. What is due every month?
    The phone costs {price}. After {deposit} at the counter, which monthly rate for {months} months?
    + Take {deposit} off {price} and spread what remains evenly over {months} payments.
    No interest, {deposit} at once, {months} rates: how high is one for a piano at {price}?
    My brother lent me {price}. I gave back {deposit}. If I need {months} more months, what is each?
    """,
    price=decimal(300, 3000, 2),
    deposit=decimal(20, 250, 2),
    months=whole_number(3, 36),
)
def instalment(price: float, deposit: float, months: int) -> float:
    """What is to be paid each month after a first payment, in cents.

    price: the full price
    deposit: what is paid at once
    months: how many equal payments follow
    """
    if months < 1 or not 0 <= deposit <= price:
        raise ValueError("months must be at least 1 and the deposit from 0 to the price")
    return rounded((Decimal(str(price)) - Decimal(str(deposit))) / months)
