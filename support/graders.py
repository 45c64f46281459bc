"""What a text's answer to a published question is, and whether it is right (§6).

    gsm8k_answer     the first "#### NUMBER", without commas: GSM8K's official rule
    last_number      the last number of a text, in any script's digits: MGSM's
    boxed            what the last \\boxed{...} holds: MATH's
    stated_letter    the first letter that is stated as the answer: multiple choice

Numbers and letters are then equal as strings. Formulas are judged twice, by graders that share no
line: `math_verified` (the package math-verify) and `same_math` (here). MATH's own grader compares
normalised strings and then asks sympy whether the difference is 0. `same_math` puts numbers for the
letters instead, since sympy's parser runs what a model wrote as Python and may not come back from
9^{9^9}.
"""

import itertools
import math
import re
from decimal import Decimal

from config import UserError

# ------------------------------------------------------------------------------------------ numbers

GSM8K_ANSWER = re.compile(r"#### (\-?[0-9\.\,]+)")  # as its authors have it
NUMBER = re.compile(r"[-−－]?\d[\d,，]*(?:[.．]\d+)?")
ASCII_SIGNS = str.maketrans("−－，．", "--,.")  # minus, and full-width signs


def gsm8k_answer(text: str) -> str:
    """The number behind the first "#### ", without commas; "" where there is none."""
    match = GSM8K_ANSWER.search(text)
    return match[1].strip().replace(",", "") if match else ""


def last_number(text: str) -> str:
    """The last number of a text, in ASCII digits, without commas and a fraction of zeros; "" where
    there is none.
    """
    numbers = NUMBER.findall(text)
    if not numbers:
        return ""
    number = numbers[-1].translate(ASCII_SIGNS).replace(",", "")
    number = "".join(str(int(sign)) if sign.isdigit() else sign for sign in number)  # ১৮ → 18
    return number.rstrip("0").rstrip(".") if "." in number else number


# -------------------------------------------------------------------------------------- one of many

# possessive (++, *+), so that a long run of spaces takes linear time
STATED = (
    r"(?i:answer)\**(?:\s++(?i:is))?\s*+[:：]?[*\s$(\[]*+"  # "**Answer:** B", "the answer is (B)"
    r"(?:\\[a-z]+{{)*+([{letters}])(?![\w'])"  # "\boxed{{\text{{B}}}}"
)
ALONE = r"^[^\w\n]*+([{letters}])(?:[.):\s]*$|[.):]\s)"


def stated_letter(text: str, letters: str) -> str:
    """The first letter after the word "answer" ("Answer: B", "the answer is (B)"); else the first
    that begins a line as a choice ("B", "B)", "B. Paris"); "" where there is none.
    """
    stated = re.search(STATED.format(letters=letters), text)
    alone = re.search(ALONE.format(letters=letters), text, re.MULTILINE)
    match = stated or alone
    return match[1] if match else ""


# ----------------------------------------------------------------------------------------- formulas


def boxed(text: str) -> str:
    """What the last \\boxed{...} of a text holds; "" where there is none or it never closes."""
    begin = text.rfind("\\boxed{")
    if begin < 0:
        return ""
    begin += len("\\boxed{")
    depth = 1
    for place in range(begin, len(text)):
        depth += (text[place] == "{") - (text[place] == "}")
        if depth == 0:
            return text[begin:place].strip()
    return ""


def math_verified(answer: str, gold: str) -> bool:
    """The verdict of math-verify. Raises UserError where it is not installed."""
    try:
        from math_verify import parse, verify
    except ImportError:
        raise UserError(
            "MATH's answers are judged by the package math-verify, which is not here; "
            "pip install 'math-verify[antlr4_13_2]', or --grader own for ours alone"
        ) from None
    return bool(answer) and bool(verify(parse(f"${gold}$"), parse(f"${answer}$")))


def same_math(answer: str, gold: str) -> bool:
    """Whether two formulas are equal: as normalised strings, else part by part (tuples and
    intervals in order, bare lists and sets in any), else in value wherever one looks.
    """
    answer, gold = normal_math(answer), normal_math(gold)
    if answer == gold:
        return bool(answer)
    ours, theirs = listed_parts(answer), listed_parts(gold)
    if ours and theirs:
        (open_a, parts_a, close_a), (open_b, parts_b, close_b) = ours, theirs
        if (open_a, close_a) != (open_b, close_b) or len(parts_a) != len(parts_b):
            return False
        orders = [parts_b]
        if open_a in ("", "\\{") and len(parts_b) <= 5:
            orders = itertools.permutations(parts_b)
        return any(all(map(same_math, parts_a, order)) for order in orders)
    if ours or theirs:
        return False
    if PLAIN_INTEGER.fullmatch(answer) and PLAIN_INTEGER.fullmatch(gold):
        return Decimal(answer) == Decimal(gold)  # floats take 11111111101 for 11111111100
    values = [(value_of(answer, point), value_of(gold, point)) for point in (0.3, 1.7, 2.9)]
    try:
        return all(
            None not in pair and abs(pair[0] - pair[1]) <= 1e-9 * max(1.0, abs(pair[1]))
            for pair in values
        )
    except OverflowError:  # the absolute value of a complex number that is finite itself
        return False


MEANINGLESS = re.compile(
    r"\\left(?![a-z])|\\right(?![a-z])|\\[!,;: ]|\\?\$|\\?%|\^\{?\\circ\}?|\s+"
)
UNIT_BEHIND = re.compile(r"(?<=[^\s])\s*\\(?:text|mbox|mathrm)\{[^{}]*\}(?:\^\{?\d\}?)?$")
WORDS_INSIDE = re.compile(r"\\(?:text|mbox|mathrm|textbf|mathbf)\{([^{}]*)\}")
PLAIN_INTEGER = re.compile(r"-?[0-9]+")
THOUSANDS = re.compile(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?")


def normal_math(text: str) -> str:
    """A formula without what carries no meaning: spaces, \\left, dollar and degree signs, a unit
    behind it, the "x =" before it, commas in thousands; \\frac12 as \\frac{1}{2}.
    """
    text = text.strip().rstrip(".").replace("{,}", ",").replace("−", "-")
    text = WORDS_INSIDE.sub(r"\1", UNIT_BEHIND.sub("", text))
    text = MEANINGLESS.sub("", text)
    text = re.sub(r"\\[dtc]frac", r"\\frac", text)
    text = re.sub(r"\\frac(\d)(\d)", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\\frac(\d)\{", r"\\frac{\1}{", text)
    text = re.sub(r"\\sqrt(\w)", r"\\sqrt{\1}", text)
    text = re.sub(r"^[a-zA-Z](?:=|\\in)", "", text)
    if THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    return re.sub(r"(?<!\d)\.(?=\d)", "0.", text)


def listed_parts(text: str) -> tuple[str, list[str], str] | None:
    """Opening bracket, parts and closing bracket of a tuple, interval, set or bare list; None for
    anything else.
    """
    opening = next((sign for sign in ("\\{", "(", "[") if text.startswith(sign)), "")
    closing = next((sign for sign in ("\\}", ")", "]") if text.endswith(sign)), "")
    if not (opening and closing):
        opening = closing = ""
    inside = text[len(opening) : len(text) - len(closing)]
    parts, depth = [""], 0
    for sign in inside:
        depth += (sign in "([{") - (sign in ")]}")
        if depth < 0:
            return None  # "(1,2)∪(3,4)": its first bracket is not closed by the last
        if sign == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += sign
    return (opening, parts, closing) if len(parts) > 1 else None


FORMULA_TOKEN = re.compile(r"\d+(?:\.\d+)?|\\[a-zA-Z]+|[a-zA-Z]|[-+*/^(){}\[\]]")
TIMES = ("*", "\\cdot", "\\times")


def value_of(text: str, point: float) -> complex | None:
    """The value of a formula of + − · / ^ \\frac \\sqrt \\pi, where its letters have values that
    `point` and the alphabet give them (i is the imaginary unit); None for anything else.
    """
    tokens = FORMULA_TOKEN.findall(text)
    if not tokens or "".join(tokens) != text:
        return None
    try:
        reader = FormulaReader(tokens, point)
        value = reader.sum()
    except (ValueError, ArithmeticError, RecursionError):
        return None
    return None if reader.tokens else value


class FormulaReader:
    """Reads a formula from the left and computes as it reads; ValueError where it is none."""

    def __init__(self, tokens: list[str], point: float):
        self.tokens, self.point = tokens[::-1], point

    @property
    def next(self) -> str:
        return self.tokens[-1] if self.tokens else ""

    def expect(self, wanted: str) -> None:
        if self.next != wanted:
            raise ValueError
        self.tokens.pop()

    def sum(self) -> complex:
        total = self.product()
        while self.next and self.next in "+-":
            sign = 1 if self.tokens.pop() == "+" else -1
            total += sign * self.product()
        return total

    def product(self) -> complex:
        """Factors with or without a sign between them; 1\\frac{4}{5} is a mixed number."""
        sign = 1
        while self.next and self.next in "+-":
            sign = -sign if self.tokens.pop() == "-" else sign
        whole = self.next.isdigit()
        value = self.power()
        while self.next and self.next not in ("+", "-", ")", "}", "]"):
            operator = self.tokens.pop() if self.next in (*TIMES, "/", "\\div") else ""
            mixed = whole and not operator and self.next == "\\frac"
            factor = self.power()
            if operator in ("/", "\\div"):
                value /= factor
            else:
                value = value + factor if mixed else value * factor
            whole = False
        return sign * value

    def power(self) -> complex:
        base = self.atom()
        if self.next != "^":
            return base
        self.tokens.pop()
        negative = self.next == "-"
        if negative:
            self.tokens.pop()
        exponent = self.power()
        return base ** (-exponent if negative else exponent)

    def atom(self) -> complex:
        token = self.tokens.pop() if self.tokens else ""
        if token[:1].isdigit():
            return complex(float(token))
        if token in ("(", "{"):
            value = self.sum()
            self.expect(")" if token == "(" else "}")
            return value
        if token == "\\frac":
            above = self.atom()
            return above / self.atom()
        if token == "\\sqrt":
            degree = 2
            if self.next == "[":
                self.tokens.pop()
                degree = self.sum()
                self.expect("]")
            return self.atom() ** (1 / degree)
        if token == "\\pi":
            return complex(math.pi)
        if token == "i":
            return 1j
        if len(token) == 1 and token.isalpha():
            return complex(self.point + math.sqrt(ord(token)))
        raise ValueError
