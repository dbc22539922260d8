# SPDX-License-Identifier: BSD-3-Clause
"""The word lists of the English front end: abbreviations, acronyms, units, names of rulers."""

from __future__ import annotations


def words(listing: str) -> tuple[str, ...]:
    """The words of a listing."""
    return tuple(listing.split())


def readings(listing: str) -> dict[str, str]:
    """The entries of a listing, "mr mister, dr doctor", by their first word."""
    entries = (entry.split(maxsplit=1) for entry in listing.split(","))
    return {written: read.strip() for written, read in entries}


ABBREVIATIONS = readings(
    "mr mister, mrs missus, ms miz, dr doctor, drs doctors, messrs messers, jr junior, sr senior,"
    "st saint, prof professor, rev reverend, capt captain, sgt sergeant, lt lieutenant,"
    "esq esquire, ltd limited, etc et cetera, vs versus, viz namely, approx approximately,"
    "dept department"
)

# With a small letter these are also words, or the end of a sentence.
CAPITALISED_ABBREVIATIONS = readings(
    "Co company, Corp corporation, Inc incorporated, Bros brothers, Gen general, Maj major,"
    "Col colonel, Cpl corporal, Pvt private, Adm admiral, Cmdr commander, Gov governor,"
    "Sen senator, Rep representative, Pres president, Hon honorable, Supt superintendent,"
    "Mt mount, Ft fort, Ave avenue, Blvd boulevard, Rd road, Jan january, Feb february,"
    "Aug august, Sept september, Oct october, Nov november, Dec december"
)

ABBREVIATIONS_BEFORE_NUMBERS = readings(
    "no number, nos numbers, vol volume, fig figure, ch chapter, sec section, p page, pp pages,"
    "mar march, apr april, jun june, jul july"
)

MONTHS = words(
    "january february march april may june july august september october november december"
)

# Only those of up to four letters: longer ones are taken for words unless listed below.
ACRONYMS_SAID_AS_WORDS = frozenset(
    words(
        "NASA NATO AIDS OPEC ASEAN FIFA UEFA SWAT LASER RADAR SONAR SCUBA NAFTA COVID SARS MERS "
        "OSHA FEMA DARPA HIPAA NOAA CERN IKEA LEGO NORAD COBOL PETA BAFTA GULAG SETI SEAL RAM ROM "
        "PIN SIM GIF LAN WAN DOS BIOS MIDI UNIX AWOL NIMBY YOLO MENSA IATA WASP MASH ISIS ASCII "
        "ZIP WIFI JPEG IMAX POTUS MOMA ESSO FIAT SAAB"
    )
)

LONG_ACRONYMS_SAID_AS_LETTERS = frozenset(words("NAACP ASPCA UNHCR UNRWA IUCAA"))

# Words put in capitals for emphasis. Not among them, for they are said as letters more often than
# not: IT, US, WHO, AM, PM, OR.
EMPHASISED_WORDS = frozenset(
    words(
        "ABOUT AFTER AGAIN ALL ALSO ALWAYS AN AND ANY ARE AT BAD BE BEST BIG BUT BY CAN COME DID "
        "DO EACH EVEN EVER EVERY EXIT FIRE FOR FREE FROM FULL GET GO GOOD GREAT HAD HAS HAVE HE "
        "HELP HER HERE HIM HIS HOT HOW HUGE IF IN INTO IS JUST KEEP LAST LATE LIKE LONG LOT LOVE "
        "MANY MAY ME MORE MOST MUCH MUST MY NEED NEVER NEW NEXT NO NONE NOT NOTE NOW OF OFF OLD "
        "ON ONE ONLY OPEN OUR OUT OVER OWN READ REAL RIGHT SALE SAME SAY SEE SHE SO SOME SOON "
        "STAY STILL STOP SUCH THAN THAT THE THEIR THEM THEN THERE THEY THIS TIME TO TODAY TOO "
        "TRUE TWO UNDER UP UPON USE VERY WANT WAS WAY WE WELL WERE WHAT WHEN WHERE WHICH WHY WILL "
        "WITH WORD WRONG YES YET YOU YOUR"
    )
)

NUMBERED_DIVISIONS = words(
    "chapter part volume book act scene section article title phase stage type class appendix war "
    "bowl amendment level figure table psalm canto mark"
)
RULERS = words(
    "Henry Charles James George Edward William Richard Louis Philip Francis Napoleon Paul John "
    "Pius Alexander Nicholas Gustav Christian Frederick Ferdinand Leo Urban Clement Benedict Karl "
    "Mohammed Ramses Ptolemy"
)

# kg is missing on purpose: the public recipe keeps its letters, see docs/text.md.
UNITS = readings(
    "km kilometer, cm centimeter, mm millimeter, m meter, km² square kilometer, m² square meter,"
    "µm micrometer, µg microgram, ft foot, yd yard, yds yard, mi mile, sq-ft square foot,"
    "sq-m square meter, km/h kilometer per hour, kph kilometer per hour, m/s meter per second,"
    "m/s² meter per second squared,"
    "mph mile per hour, lb pound, lbs pound, oz ounce, g gram, mg milligram, ml milliliter,"
    "mL milliliter, l liter, L liter, min minute, mins minute, hr hour, hrs hour, sec second,"
    "secs second, ms millisecond, Hz hertz, kHz kilohertz, MHz megahertz, GHz gigahertz,"
    "KB kilobyte, kB kilobyte, MB megabyte, GB gigabyte, TB terabyte, kW kilowatt, MW megawatt,"
    "kWh kilowatt hour, dB decibel, °C degree celsius, °F degree fahrenheit, ° degree,"
    "bn billion, mn million"
)
