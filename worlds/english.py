"""Real words for the worlds' English tasks (Difficulty's `names: english`): people, towns, topics,
tables with columns and value ranges, files with contents, tools.

Each word, table and tool belongs to one split, by splits.split_of's hash of its name, as made-up
names do; so what is measured holds tables, files and people that training has never shown. English
itself cannot be held out: wordings are (worlds/phrasings.py), single common words are not.

    draw_word(rng, "towns", "test", used)       "Utrecht"
    draw_person(rng, "train", used)             "Nora Lindqvist"
    draw_table(rng, "validation")               EnglishTable("loans", "member", ...)
    other_splits_words(text, "train")           words in a text that belong to another split
"""

import random
import re
from dataclasses import dataclass
from functools import cache

from config import UserError
from worlds.splits import draw_name, split_of
from worlds.tools import make_tool

# ------------------------------------------------------------------------------------------- words


def _listed(text: str) -> tuple[str, ...]:
    """The entries of a text, which commas separate."""
    return tuple(" ".join(text.split()).split(", "))


WORDS: dict[str, tuple[str, ...]] = {
    "people": _listed(
        """
        Alice, Amara, Andrei, Anika, Antonio, Astrid, Aylin, Beatriz, Benedikt, Boris, Bruno,
        Camille, Carlos, Carmen, Cecilia, Chiara, Claudia, Connor, Daniela, David, Deborah, Diego,
        Dimitri, Dorothea, Edgar, Eduardo, Elena, Elias, Emily, Emre, Erika, Esther, Fabian, Farah,
        Fatima, Felix, Fiona, Francesca, Gabriel, Georgia, Gerald, Giulia, Gregor, Hana, Harold,
        Hassan, Helena, Henrik, Hugo, Ibrahim, Imani, Ingrid, Irene, Isabel, Ivan, Jasper, Jelena,
        Joanna, Johannes, Jonas, Julia, Kamal, Karin, Katarina, Kenji, Kofi, Kristof, Lars, Laura,
        Leila, Leon, Liam, Linnea, Lorenzo, Lucas, Lydia, Magnus, Malik, Marcus, Margot, Maria,
        Martin, Mateo, Matilda, Mehmet, Melissa, Miriam, Mohammed, Monika, Nadia, Naomi, Natalia,
        Nikolai, Nina, Noah, Nora, Olga, Oliver, Omar, Oscar, Pablo, Patricia, Paula, Pedro, Petra,
        Philip, Priya, Rafael, Rania, Rebecca, Ricardo, Robert, Roland, Rosalind, Samira, Samuel,
        Sandra, Sanjay, Sebastian, Selma, Sofia, Stefan, Susanna, Tamara, Tariq, Teresa, Theodor,
        Thomas, Tobias, Ursula, Valentina, Vera, Veronica, Victor, Viktor, Vincent, Walter, Wanda,
        Xavier, Yasmin, Yuki, Yusuf, Zainab, Zoe
        """
    ),
    "surnames": _listed(
        """
        Abbott, Adeyemi, Albrecht, Alvarez, Andersen, Baranov, Barbosa, Becker, Bergstrom, Bianchi,
        Bishara, Blanchard, Brandt, Calloway, Castellano, Chandra, Costa, Delgado, Dubois, Eriksen,
        Esposito, Farouk, Fernandes, Fischer, Fitzgerald, Fontaine, Gallagher, Garcia, Gonzalez,
        Gupta, Haddad, Hansen, Harrington, Hoffmann, Horvat, Ivanova, Jansen, Jorgensen, Kapoor,
        Karlsson, Kaufmann, Keller, Kim, Kowalski, Kruger, Lambert, Larsen, Laurent, Lindqvist,
        Lombardi, Mahmoud, Marchetti, Mendes, Meyer, Molina, Moreau, Moreno, Nakamura, Navarro,
        Nguyen, Novak, Nowak, Okafor, Oliveira, Olsen, Ortega, Osman, Papadakis, Pereira, Petrov,
        Ramirez, Rossi, Saito, Santos, Schneider, Schwartz, Serrano, Silva, Sorensen, Stewart,
        Suzuki, Svensson, Takahashi, Tanaka, Teixeira, Thompson, Vargas, Vasquez, Vogel, Wagner,
        Walsh, Weber, Whitaker, Yilmaz, Zhang, Zimmermann
        """
    ),
    "towns": _listed(
        """
        Aarhus, Adelaide, Amsterdam, Antwerp, Athens, Auckland, Barcelona, Basel, Belfast, Bergen,
        Berlin, Bilbao, Bologna, Bordeaux, Bratislava, Brighton, Bristol, Brno, Brussels, Bucharest,
        Budapest, Calgary, Cardiff, Chicago, Cologne, Copenhagen, Cork, Dallas, Denver, Dortmund,
        Dresden, Dublin, Dundee, Edinburgh, Florence, Geneva, Genoa, Ghent, Glasgow, Gothenburg,
        Graz, Hamburg, Hanoi, Helsinki, Houston, Istanbul, Kyoto, Lausanne, Leeds, Leipzig, Lisbon,
        Liverpool, Ljubljana, London, Lyon, Madrid, Malaga, Manchester, Marseille, Melbourne, Milan,
        Montreal, Munich, Nairobi, Nantes, Naples, Osaka, Oslo, Ottawa, Palermo, Paris, Perth,
        Porto, Prague, Quebec, Riga, Rotterdam, Salzburg, Santiago, Seattle, Seoul, Seville,
        Sheffield, Stockholm, Stuttgart, Sydney, Tallinn, Tampere, Toronto, Toulouse, Trieste,
        Turin, Utrecht, Valencia, Vancouver, Venice, Vienna, Vilnius, Warsaw, Wellington, Zagreb,
        Zurich
        """
    ),
    "companies": _listed(
        """
        Alder Textiles, Aldgate Press, Arrowhead Tools, Aster Pharma, Atlas Freight,
        Beacon Insurance, Birchwood Furniture, Bluestone Mining, Brightwater Foods,
        Brookfield Seeds, Cedar Optics, Cobalt Software, Coral Shipping, Crestline Hotels,
        Crown Bakeries, Delta Robotics, Dunmore Steel, Eastgate Motors, Elmhurst Dairy,
        Falcon Couriers, Fernhill Paper, Foxglove Cosmetics, Granite Construction, Greenleaf Farms,
        Halden Electric, Harbour Logistics, Hazel Ceramics, Heron Airlines, Highfield Bank,
        Horizon Travel, Inkwell Books, Ironbridge Rail, Ivory Piano Works, Juniper Energy,
        Keystone Glass, Kestrel Aviation, Lakeside Clinics, Larkspur Media, Linden Legal,
        Lodestar Security, Maple Mobile, Marlow Marine, Meadow Organics, Millstone Grain,
        Nimbus Cloud, Northgate Telecom, Oakridge Timber, Onyx Jewellers, Opal Lighting,
        Orchard Juice, Palisade Games, Pinnacle Sports, Quarry Cement, Quill Stationery,
        Ravenna Shoes, Redwood Capital, Riverbend Water, Sapphire Watches, Silverline Coaches,
        Solstice Solar, Sparrow Toys, Sterling Metals, Stonebridge Wines, Summit Outdoors,
        Tamarind Spices, Thistle Knitwear, Trident Boats, Umber Paints, Vantage Consulting,
        Verdant Gardens, Westbrook Pharmacy, Whitecliff Salt, Willow Furnishings, Yarrow Labs,
        Zephyr Fans
        """
    ),
    "products": _listed(
        """
        alarm clock, armchair, backpack, barbecue, baseball glove, bath towel, bicycle helmet,
        binoculars, blanket, blender, bookshelf, bread knife, briefcase, camping stove, candle,
        cardigan, carpet, chessboard, coffee grinder, corkscrew, cushion, cutting board,
        desk lamp, dishwasher, doorbell, drill, dumbbell, electric kettle, espresso machine,
        fountain pen, freezer, frying pan, garden hose, guitar, hair dryer, hammer, hammock,
        headphones, heater, inkjet printer, iron, keyboard, ladder, laptop stand, lawn mower,
        lunch box, mattress, microphone, microwave, mirror, monitor, notebook, office chair, pillow,
        power bank, radio, raincoat, record player, rice cooker, roller skates, router, rucksack,
        saucepan, scarf, screwdriver, sewing machine, shower curtain, ski boots, sleeping bag,
        smartwatch, snowboard, soldering iron, speaker, stapler, suitcase, sunglasses, surfboard,
        tablet, teapot, telescope, tennis racket, tent, thermometer, toaster, torch, tripod,
        trumpet, umbrella, vacuum cleaner, violin, waffle iron, wallet, wardrobe, webcam,
        wheelbarrow, whiteboard, wine glass, wok, wristband, yoga mat
        """
    ),
    "titles": _listed(
        """
        Amber Tide, Ashes of Autumn, Autumn Letters, Beneath the Ice, Beyond the Harbour,
        Broken Compass, City of Lanterns, Cold Harvest, Crimson Orchard, Dancing Shadows,
        Distant Thunder, Echo Valley, Empty Theatre, Fading Lights, Falling Petals, First Frost,
        Forgotten Garden, Frozen River, Ghost Station, Glass Mountain, Golden Hour,
        Hidden Staircase, Hollow Bridge, House of Mirrors, Island of Bells, Journey North,
        Last Lighthouse, Little Wolves, Long Winter, Lost Cartographer, Midnight Ferry,
        Moonlit Road, Morning Train, Mountain Song, Night Gardener, Northern Sky, Ocean Hymn,
        Old Watchmaker, Open Window, Paper Birds, Quiet Storm, Rain over the Road, Red Lantern,
        Return to Eden, River Stones, Saltwater, Scarlet Winter, Second Sunrise, Secret Violin,
        Seven Keys, Silent Spring Rain, Silver Comet, Sleeping Giants, Stolen Summer, Stone Garden,
        Summer Rain, Sunken Cathedral, Tall Grass, The Ninth Wave, Thin Walls, Tower of Salt,
        Velvet Evening, Voices in the Fog, Wandering Moon, White Heron, Wild Geese, Winter Palace,
        Yellow Umbrella Stand
        """
    ),
    "topics": _listed(
        """
        allergy, apprenticeship, audit, bankruptcy, bonus, brochure, cancellation, carpool,
        catering, charger, chlorine, compensation, compost, copyright, coupon, deadline, deposit,
        diesel, discount, donation, elevator, emergency, evacuation, exhibition, expedition,
        fertiliser, fireworks, firewall, forecast, fundraiser, generator, glacier,
        greenhouse, guarantee, handbook, harvest, holiday, humidity, inflation, inspection,
        insulation, insurance, interview, invitation, jury, kindergarten, landlord, lawsuit,
        leaflet, licence, lottery, luggage, maintenance, marathon, mortgage, newsletter, nutrition,
        orchestra, orientation, overtime, parking, passport, pension, petition, pollution,
        prescription, probation, promotion, quarantine, questionnaire, rebate, recycling, refund,
        rehearsal, renovation, reservation, resignation, retirement, sabbatical, scholarship,
        shipment, sponsorship, strike, subsidy, surcharge, surgery, sustainability, tariff, tender,
        thermostat, tournament, training, tuition, turbine, upgrade, vaccine, visa, volunteer,
        voucher, warranty, workshop
        """
    ),
    "folders": _listed(
        """
        accounts, albums, applications, assignments, auctions, blueprints, bookings, budgets,
        campaigns, catalogue, certificates, circulars, claims, clippings, contacts, contracts,
        courses, cuttings, deliveries, diagrams, dispatches, documents, downloads, drafts, drawings,
        essays, estimates, evidence, exams, expenses, exports, feedback, figures, finance, forms,
        gallery, grants, guides, handouts, imports, inbox, inventory, invoices, journals, kitchen,
        lectures, leases, legal, library, lists, mailing, manuals, maps, marketing,
        measurements, meetings, memos, newsletters, outbox, papers, payroll, permits,
        photos, policies, portfolio, posters, presentations, projects, proposals, purchases, quotes,
        readings, receipts, recipes, references, releases, reports, research, returns,
        reviews, rosters, sales, samples, scans, schedules, shared, shipping, sketches, slides,
        snapshots, statements, suppliers, surveys, syllabus, tasks, taxes, templates, tickets,
        timesheets, transcripts, travel, tutorials, updates, uploads, vendors, warehouse, worksheets
        """
    ),
    # what the names of files begin with: papers, data and the logs of services
    "documents": _listed(
        """
        offer, letter, summary, proposal, checklist, guide, cover_letter, press_release, memo,
        interview_notes, order_form, manual, protocol, programme, itinerary, travel_plan,
        contract, agenda, essay, thesis, briefing, white_paper, statement, policy_paper, speech,
        resume, plan_of_work, floor_plan, menu, schedule, poster, certificate, bill, warning_letter,
        price_list, packing_list, reading_list, to_do, meeting, diary, outline, abstract, review
        """
    ),
    "data": _listed(
        """
        salaries, sales_figures, stock_levels, temperatures, attendance, timesheet, donations,
        votes, shipments, transactions, parts_list, survey_results, visitors, ratings, scores,
        readings, rainfall, payments, bookings_export, contacts_export, weights, heights, mileage,
        expenses_sheet, forecast_table, price_index, grades, results, members, clicks,
        downloads_count, signups, addresses, birthdays, ballots, sensor_values, fuel_use,
        water_levels, page_views, exam_points, wages, turnout, population_table, bird_counts,
        lap_times, energy_use, sales_by_week, daily_totals, traffic_counts, invoices_open,
        tide_table, pulse_rates, rents
        """
    ),
    "services": _listed(
        """
        backup, server, sync, installer, printer_queue, firewall_events, crawler, monitoring, vpn,
        payment_service, deploy, mailer, cron, search_index, night_job, scheduler,
        updater, importer, exporter, cache_cleanup, proxy, build_agent, router_events,
        login_service, webshop, mail_filter, indexer, watchdog, load_balancer, chat_service,
        image_service
        """
    ),
    # names of arguments that a tool may ask for beside its own, each of them a number
    "arguments": _listed(
        """
        access_code, account_number, agent_id, api_version, approval_code, area_code, badge_number,
        batch_number, billing_code, branch_code, buffer_size, call_number, case_number, channel_id,
        checkpoint, client_id, cluster_id, cost_center, customer_number, department_code,
        desk_number, device_id, employee_number, extension_number, floor_number, gateway_id,
        group_id, host_number, incident_id, job_number, key_index, ledger_code, license_number,
        lock_id, login_code, machine_id, member_number, network_id, office_code, operator_id,
        owner_id, partition_id, permit_number, pin_code, pool_id, port_number, priority_level,
        process_id, profile_id, project_code, queue_number, quota_code, rack_number, region_code,
        release_number, request_number, retry_token, revision, route_id, schema_version,
        seat_number, sector_code, security_code, sequence_number, serial_number, server_number,
        session_number, shard_number, shift_code, site_id, slot_number, store_number, system_code,
        team_number, tenant_id, terminal_id, thread_number, ticket_number, trace_id, transaction_id,
        unit_code, user_number, vault_number, volume_id, warehouse_code, window_size, worker_id,
        workspace_id, zone_code
        """
    ),
    # what an argument may be renamed to; "*" stands for its old name
    "renamings": _listed(
        """
        *_text, input_*, *_value, *_string, the_*, new_*, *_param, raw_*, *_arg, *_field, my_*,
        *_data, full_*, *_content, given_*, *_body, *_input, target_*, *_v2, user_*, *_item,
        request_*, *_entry, main_*, *_spec, exact_*, *_payload, source_*, *_literal, plain_*,
        *_token, current_*, *_name, actual_*, *_expression, wanted_*
        """
    ),
}

# ------------------------------------------------------------------------------------------ tables


@dataclass(frozen=True)
class EnglishTable:
    """A table of whole numbers about people, towns or things, and a second one about the same."""

    name: str
    key: str  # the column of what the rows are about, ...
    kind: str  # ... and the kind of the words in it
    label: str  # a further column of words ...
    label_kind: str  # ... and their kind
    numbers: dict[str, range]  # column: its values
    second: str  # a table that has the key, too ...
    second_numbers: dict[str, range]  # ... and one column of numbers


def _read_tables(text: str) -> tuple[EnglishTable, ...]:
    """Three lines per table: "name: key kind, label kind", then "column lowest-highest, ...", then
    the second table's "name: column lowest-highest".
    """
    tables = []
    lines = [line.strip() for line in text.strip().splitlines()]
    for words, numbers, beside in zip(lines[::3], lines[1::3], lines[2::3]):
        name, key, kind, label, label_kind = re.split(r": |, | ", words)
        second, second_values = beside.split(": ")
        tables.append(
            EnglishTable(
                name=name,
                key=key,
                kind=kind,
                label=label,
                label_kind=label_kind,
                numbers=_read_ranges(numbers),
                second=second,
                second_numbers=_read_ranges(second_values),
            )
        )
    return tuple(tables)


def _read_ranges(text: str) -> dict[str, range]:
    """ "age 17-35, score 20-100" """
    ranges = {}
    for entry in text.split(", "):
        column, lowest, highest = re.split(" |-", entry)
        ranges[column] = range(int(lowest), int(highest) + 1)
    return ranges


# No column of one split's tables occurs in another split's.
ENGLISH_TABLES = _read_tables(
    """
    orders: customer people, city towns
        amount 20-950, items 1-40, weight 1-60, discount 1-50
        refunds: repaid 5-400
    books: title titles, author surnames
        pages 90-900, copies 1-60, shelf 1-80, published 1950-2023
        book_sales: sold 10-5000
    hotels: city towns, owner surnames
        rooms 20-400, floors 2-30, night_rate 40-320, opened 1900-2022
        hotel_reviews: reviews_written 5-900
    flights: destination towns, airline companies
        seats 40-380, minutes 45-840, fare 30-900, gate 1-70
        baggage: bags 10-500
    students: student people, tutor surnames
        credits 10-180, absences 0-40, age 17-35, score 20-100
        stipends: monthly 100-900
    patients: patient people, doctor surnames
        pulse 50-120, height 140-205, ward 1-30, stay_days 1-45
        prescriptions: pills 5-120
    loans: borrower people, city towns
        principal 500-9000, months 6-120, arrears 0-900, instalment 30-900
        guarantors: pledged 100-5000
    cars: owner people, garage towns
        mileage 500-9000, engine_power 45-320, tank 30-90, built 1990-2023
        tyre_checks: pressure 18-45
    players: player people, club towns
        goals 0-45, matches 1-60, shirt 1-99, assists 0-30
        transfers: bid 10-900
    movies: film titles, director surnames
        runtime 70-210, budget 10-240, awards 0-25, cinemas 5-900
        screenings: admissions 50-9000
    farms: farmer people, village towns
        cows 5-200, hectares 4-300, tractors 1-15, barns 1-20
        milk_tests: litres 10-600
    suppliers: supplier companies, contact surnames
        lead_time 2-90, parts 5-400, overdue 0-60, volume 9-99
        framework_deals: units_agreed 100-9000
    vineyards: grower people, region towns
        bottles 200-9000, vines 300-8000, slope 1-40, planted 1900-2015
        tastings: points 60-100
    subscriptions: subscriber people, city towns
        fee 3-90, devices 1-12, renewals 0-30, logins 1-400
        support_calls: calls_made 1-40
    volunteers: helper people, city towns
        hours 2-120, deployments 1-20, age 16-80, since 1990-2023
        first_aid: drills 1-25
    bicycles: rider people, maker companies
        gears 1-27, frame_size 40-65, distance 5-900, bought 1995-2023
        bicycle_lights: lumens 50-900
    accounts: holder people, branch_town towns
        balance 50-9000, overdraft 0-900, cards 1-15, payees 0-40
        savings: saved 10-9000
    offices: office towns, manager surnames
        desks 5-300, printers 1-40, rent 900-9000, floor 1-45
        fire_drills: seconds 40-600
    games: game titles, studio companies
        levels 5-120, online_players 10-9000, patches 1-60, size_gb 1-150
        speedruns: best_minutes 5-300
    podcasts: podcast titles, host surnames
        episodes 3-400, listeners 50-9000, season 1-20, adverts 0-15
        podcast_charts: chart_place 1-100
    employees: employee people, home_town towns
        salary 1400-9000, vacation_days 10-45, grade 1-20, commute_km 1-90
        appraisals: marks 1-60
    apartments: resident people, letting_agency companies
        square_metres 20-240, storey 0-40, heating_cost 20-400, tenancy_months 3-60
        bicycle_racks: rack 1-200
    donors: donor people, chapter towns
        given 10-9000, gifts 1-60, joined 1980-2023, pledges 0-20
        thank_you_notes: notes_sent 1-40
    athletes: athlete people, track_town towns
        medals 0-40, jump_cm 120-780, body_mass 45-130, starts 1-30
        dope_tests: tests_passed 1-40
    rentals: renter people, equipment products
        daily_rate 5-190, rental_days 1-45, security_paid 20-900, hours_late 0-72
        damages: damage_cost 5-900
    teachers: teacher people, school_town towns
        lessons 4-32, classes 1-15, pupils 12-180, consulting_hours 1-20
        substitutes: substitutions 1-40
    campsites: campsite towns, warden surnames
        pitches 10-400, showers 1-40, caravans 0-150, altitude 5-1900
        lifeguards: guards 1-20
    ferries: harbour towns, captain surnames
        decks 1-14, crossing_time 15-600, car_spaces 10-400, cabins 0-300
        delays: delay_minutes 1-240
    paintings: painting titles, painter surnames
        canvas_width 20-300, canvas_height 20-300, painted_in 1600-2020, insured_value 500-9000
        restorations: restoration_hours 2-400
    repairs: appliance products, technician surnames
        labour_cost 10-400, spare_parts 1-25, visits_needed 1-12, repair_total 20-1500
        complaints: complaint_count 1-40
    products: product products, brand companies
        price 3-900, stock 0-400, reorder_level 2-90, shelf_life 10-900
        product_ratings: stars_given 3-900
    courses: lecturer people, campus towns
        enrolled 5-300, teaching_hours 10-90, passes 2-200, course_fee 50-3000
        course_books: chapters 4-40
    machines: operator people, plant towns
        runtime_hours 20-9000, pieces_made 50-9000, downtime 0-300, temperature 20-95
        spare_belts: belts 1-40
    stores: store towns, store_head surnames
        tills 1-30, daily_visitors 40-4000, floor_space 60-4000, turnover 900-9000
        store_staff: cashiers 1-40
    trains: terminus towns, rail_company companies
        carriages 2-18, top_speed 80-320, stops 1-40, departures 1-60
        tracks: track_km 5-900
    deliveries: recipient people, depot towns
        parcels 1-60, kilometres 1-400, van 1-40, extra_charge 1-60
        signatures: attempts 1-12
    airports: airport towns, chief_controller surnames
        travellers 200-9000, checkin_counters 4-120, duty_free_shops 2-150, lounges 1-20
        noise_measurements: decibels 40-110
    festivals: festival_town towns, organiser surnames
        stages 1-15, bands 4-90, campers 50-9000, toilets 5-200
        festival_food: food_stalls 2-60
    parks: park_town towns, head_gardener surnames
        benches 4-300, trees 20-4000, ponds 1-12, playgrounds 1-14
        park_hedges: hedge_metres 10-900
    albums: album titles, artist surnames
        track_count 5-30, plays 10-9000, chart_weeks 1-80, vinyl_copies 1-900
        remixes: remix_plays 5-900
    nurses: nurse people, hospital towns
        night_shifts 0-25, beds 2-40, years_served 1-40, vaccinations 1-200
        lockers: locker 1-300
    """
)


# ------------------------------------------------------------------------------------------- files


@dataclass(frozen=True)
class FileKind:
    """Files with one extension: what they are called, and what stands in them.

    In a line {person}, {town}, {company}, {product} and {topic} are words, {n} and {m} numbers.
    """

    spoken: str  # "PDF" of "the PDF files"
    stems: str  # the kind of the words that their names begin with
    mention: str  # a line about {word}
    lines: tuple[str, ...]  # further lines


_PROSE = (
    "{n}. {person} from {town} wrote about the {topic}.",
    "{n}. {company} will pay for the {topic} in {town}.",
    "{n}. {person} needs a {product} for the office in {town}.",
    "{n}. The {topic} was moved to room {m}.",
    "{n}. Call {company} in {town} about the {topic}.",
)
FILE_KINDS_IN_ENGLISH = {  # by extension
    "pdf": FileKind("PDF", "documents", "{n}. The {word} was discussed.", _PROSE),
    "txt": FileKind(".txt", "documents", "{n}. Do not forget the {word}.", _PROSE),
    "md": FileKind("Markdown", "documents", "- [{n}] {word}", ("- [{n}] {person}, {topic}",)),
    "csv": FileKind(
        "CSV", "data", "{word},{n},", ("{person},{n},{town}", "{product},{n},{company}")
    ),
    "json": FileKind(
        "JSON",
        "data",
        '{{"note": "{word}", "count": {n}}}',
        ('{{"name": "{person}", "count": {n}}}', '{{"town": "{town}", "count": {n}}}'),
    ),
    "log": FileKind(
        "log",
        "services",
        "{n} WARNING {word} took {m} s",
        ("{n} INFO {topic} done in {m} s", "{n} ERROR no answer from {town}", "{n} INFO started"),
    ),
    "tmp": FileKind(
        ".tmp", "services", "cached {n} {word}", ("cached {n} {topic}", "lock {n} {town}")
    ),
}
# what a file's name may end in, behind the stem: contract_lisbon.pdf
MONTHS = _listed(
    "january, february, march, april, may, june, july, august, september, october, november"
)

# ------------------------------------------------------------------------------------------- tools


def _read_tools(text: str) -> tuple[dict, ...]:
    """A line per tool: "name(argument type, ...): description"."""
    tools = []
    for line in text.strip().splitlines():
        name, arguments, description = re.fullmatch(r"\s*(\w+)\((.*?)\): (.*)", line).groups()
        properties = {}
        for argument in arguments.split(", "):
            key, kind = argument.split()
            properties[key] = {"type": kind}
        tools.append(make_tool(name, description, properties))
    return tuple(tools)


# Tools that stand beside those that a task needs. None has to do with files or databases, and none
# does what a request that no tool fits asks for (worlds/phrasings.py).
OTHER_TOOLS = _read_tools(
    """
    get_weather(place string, day string): Say what the weather will be like in a place
    roll_dice(sides integer): Roll a die
    resize_image(image string, width integer): Scale an image to a width in pixels
    play_music(song string): Play a song on the loudspeaker
    get_sunrise(place string): Get the time of sunrise
    get_pollen(place string): Get the pollen count of a place
    get_air_quality(place string): Get the air quality index of a place
    get_elevation(place string): Get the height above sea level in metres
    get_population(country string): Get the number of inhabitants of a country
    get_bus_times(stop string): List the next buses at a stop
    get_parking_price(street string): Get what parking costs in a street, per hour
    get_fuel_price(station string): Get the price of petrol at a station
    count_calories(meal string): Estimate the calories of a meal
    convert_units(number number, unit string, to_unit string): Convert a number to another unit
    random_number(low integer, high integer): Draw a random whole number
    create_qr_code(link string): Make a QR code of a link
    get_postcode(street string): Get the postcode of an address
    get_song_lyrics(song string): Get the words of a song
    get_football_score(team string): Get the last result of a football team
    get_battery_level(phone string): Get the charge of a battery in percent
    set_brightness(percent integer): Set the brightness of the screen
    set_volume(percent integer): Set the volume of the loudspeaker
    get_step_count(day string): Get the steps walked on a day
    dim_lights(room string, percent integer): Dim the lights of a room
    convert_currency(sum number, currency string, into string): Convert money to another currency
    get_stock_price(symbol string): Get the price of a share
    get_exchange_rate(currency string): Get the value of a currency in euros
    get_traffic_delay(road string): Say how long the traffic jams on a road last
    get_horoscope(sign string): Get today's horoscope of a star sign
    get_train_times(platform string): List the next connections at a platform
    get_joke(subject string): Tell a joke about a subject
    get_nutrition(food string): Get the nutrients of a food per 100 g
    track_parcel(parcel integer): Say where a parcel is
    get_holidays(country string, year integer): List the public holidays of a country
    get_heart_rate(watch string): Get the pulse that a watch measures
    get_interest_rate(bank string): Get a bank's interest rate in percent
    simulate_coin(throws integer): Toss a coin several times
    translate_text(words string, language string): Translate words to another language
    get_tide(coast string): Get the time of high tide
    get_distance(start string, end string): Get the distance between two places in km
    shorten_url(link string): Make a short link
    scan_barcode(image string): Read the barcode in an image
    get_movie_rating(film_title string): Get the rating of a film
    get_moon_phase(day string): Get the phase of the moon on a day
    start_timer(minutes integer): Count down to zero
    detect_language(words string): Say which language words are in
    spell_check(words string): Find spelling mistakes
    identify_plant(image string): Name the plant in an image
    get_vat_rate(country string): Get the value-added tax of a country in percent
    """
)

# ----------------------------------------------------------------------------------------- by split


@cache
def words_of_split(kind: str, split: str) -> tuple[str, ...]:
    """The words of a kind that belong to a split."""
    return tuple(word for word in WORDS[kind] if split_of(word) == split)


def draw_word(rng: random.Random, kind: str, split: str, used: set[str]) -> str:
    """A word of a kind and a split that is not yet in `used`; it is added there.

    Raises UserError where all of them are used.
    """
    left = [word for word in words_of_split(kind, split) if word not in used]
    if not left:
        raise UserError(
            f"a task wants more {kind} than the {len(words_of_split(kind, split))} that the split "
            f"{split} has; give it fewer distractors"
        )
    word = rng.choice(left)
    used.add(word)
    return word


def draw_person(rng: random.Random, split: str, used: set[str]) -> str:
    """A first name and a surname."""
    return f"{draw_word(rng, 'people', split, used)} {draw_word(rng, 'surnames', split, used)}"


def draw_argument_name(rng: random.Random, split: str, used: set[str], names: str) -> str:
    """The name of an argument or a tool that is in no schema; `names` is Difficulty's setting."""
    if names == "english":
        return draw_word(rng, "arguments", split, used)
    return draw_name(rng, split, used)


def draw_renaming(rng: random.Random, key: str, split: str, used: set[str], names: str) -> str:
    """Another name for an argument, that is not in `used`; in English one like its own."""
    if names != "english":
        return draw_name(rng, split, used)
    found = [form.replace("*", key) for form in words_of_split("renamings", split)]
    return rng.choice([name for name in found if name not in used])


def draw_table(rng: random.Random, split: str) -> EnglishTable:
    """A table of the split."""
    return rng.choice([table for table in ENGLISH_TABLES if split_of(table.name) == split])


def draw_tools(rng: random.Random, split: str, count: int) -> list[dict]:
    """Different tools of the split that fit no task."""
    own = [tool for tool in OTHER_TOOLS if split_of(tool["function"]["name"]) == split]
    return rng.sample(own, count)


def draw_file_name(rng: random.Random, extension: str, split: str, used: set[str]) -> str:
    """A name like offer_march_07.pdf that is not yet in `used`; it is added there."""
    stems = words_of_split(FILE_KINDS_IN_ENGLISH[extension].stems, split)
    while True:
        stem = rng.choice(stems)
        ending = rng.choice((rng.choice(MONTHS), f"{rng.randrange(1, 100):02}", "final"))
        name = f"{stem}_{ending}.{extension}"
        if name not in used:
            used.add(name)
            return name


def fill_line(rng: random.Random, line: str, split: str, unsaid: str) -> str:
    """A line of a file with its slots filled in; the word `unsaid` is not among what is drawn."""
    topics = [topic for topic in words_of_split("topics", split) if topic != unsaid]
    return line.format(
        person=rng.choice(words_of_split("people", split)),
        town=rng.choice(words_of_split("towns", split)),
        company=rng.choice(words_of_split("companies", split)),
        product=rng.choice(words_of_split("products", split)),
        topic=rng.choice(topics),
        n=rng.randrange(100),
        m=rng.randrange(100),
    )


@cache
def _pattern_of_others(split: str) -> re.Pattern:
    """What matches the words of the splits but one; stems of files only with what follows them."""
    others = {table.name for table in ENGLISH_TABLES} | {
        tool["function"]["name"] for tool in OTHER_TOOLS
    }
    for kind, words in WORDS.items():
        if kind in ("documents", "data", "services"):
            others.update(f"{word}_" for word in words)
        elif kind != "renamings":
            others.update(words)
    others = [word for word in others if split_of(word.removesuffix("_")) != split]
    others += [table.second for table in ENGLISH_TABLES if split_of(table.name) != split]
    longest_first = sorted(map(re.escape, others), key=len, reverse=True)
    return re.compile(rf"(?<!\w)(?:{'|'.join(longest_first)})(?:(?<=_)|(?!\w))")


def other_splits_words(text: str, split: str) -> set[str]:
    """The words of a text that belong to another split."""
    return set(_pattern_of_others(split).findall(text))
