"""Real words for the worlds' English tasks (Difficulty's `names: english`): people, towns, products,
tables with their columns and value ranges, files with their contents, folders, tools, topics.

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

# ------------------------------------------------------------------------------------------- words


def _listed(text: str) -> tuple[str, ...]:
    """The entries of a text, which commas and line ends separate."""
    return tuple(entry.strip() for entry in re.split(r"[,\n]", text) if entry.strip())


WORDS: dict[str, tuple[str, ...]] = {
    "people": _listed(
        """Alice, Amara, Andrei, Anika, Antonio, Astrid, Aylin, Beatriz, Benedikt, Boris, Bruno,
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
        Xavier, Yasmin, Yuki, Yusuf, Zainab, Zoe"""
    ),
    "surnames": _listed(
        """Abbott, Adeyemi, Albrecht, Alvarez, Andersen, Baranov, Barbosa, Becker, Bergstrom,
        Bianchi, Bishara, Blanchard, Brandt, Calloway, Castellano, Chandra, Costa, Delgado, Dubois,
        Eriksen, Esposito, Farouk, Fernandes, Fischer, Fitzgerald, Fontaine, Gallagher, Garcia,
        Gonzalez, Gupta, Haddad, Hansen, Harrington, Hoffmann, Horvat, Ivanova, Jansen, Jorgensen,
        Kapoor, Karlsson, Kaufmann, Keller, Kim, Kowalski, Kruger, Lambert, Larsen, Laurent,
        Lindqvist, Lombardi, Mahmoud, Marchetti, Mendes, Meyer, Molina, Moreau, Moreno, Nakamura,
        Navarro, Nguyen, Novak, Nowak, Okafor, Oliveira, Olsen, Ortega, Osman, Papadakis, Pereira,
        Petrov, Ramirez, Rossi, Saito, Santos, Schneider, Schwartz, Serrano, Silva, Sorensen,
        Stewart, Suzuki, Svensson, Takahashi, Tanaka, Teixeira, Thompson, Vargas, Vasquez, Vogel,
        Wagner, Walsh, Weber, Whitaker, Yilmaz, Zhang, Zimmermann"""
    ),
    "towns": _listed(
        """Aarhus, Adelaide, Amsterdam, Antwerp, Athens, Auckland, Barcelona, Basel, Belfast,
        Bergen, Berlin, Bilbao, Bologna, Bordeaux, Bratislava, Brighton, Bristol, Brno, Brussels,
        Bucharest, Budapest, Calgary, Cardiff, Chicago, Cologne, Copenhagen, Cork, Dallas, Denver,
        Dortmund, Dresden, Dublin, Dundee, Edinburgh, Florence, Geneva, Genoa, Ghent, Glasgow,
        Gothenburg, Graz, Hamburg, Hanoi, Helsinki, Houston, Istanbul, Kyoto, Lausanne, Leeds,
        Leipzig, Lisbon, Liverpool, Ljubljana, London, Lyon, Madrid, Malaga, Manchester, Marseille,
        Melbourne, Milan, Montreal, Munich, Nairobi, Nantes, Naples, Osaka, Oslo, Ottawa, Palermo,
        Paris, Perth, Porto, Prague, Quebec, Riga, Rotterdam, Salzburg, Santiago, Seattle, Seoul,
        Seville, Sheffield, Stockholm, Stuttgart, Sydney, Tallinn, Tampere, Toronto, Toulouse,
        Trieste, Turin, Utrecht, Valencia, Vancouver, Venice, Vienna, Vilnius, Warsaw, Wellington,
        Zagreb, Zurich"""
    ),
    "companies": _listed(
        """Alder Textiles, Aldgate Press, Arrowhead Tools, Aster Pharma, Atlas Freight,
        Beacon Insurance, Birchwood Furniture, Bluestone Mining, Brightwater Foods, Brookfield Seeds,
        Cedar Optics, Cobalt Software, Coral Shipping, Crestline Hotels, Crown Bakeries,
        Delta Robotics, Dunmore Steel, Eastgate Motors, Elmhurst Dairy, Falcon Couriers,
        Fernhill Paper, Foxglove Cosmetics, Granite Construction, Greenleaf Farms, Halden Electric,
        Harbour Logistics, Hazel Ceramics, Heron Airlines, Highfield Bank, Horizon Travel,
        Inkwell Books, Ironbridge Rail, Ivory Piano Works, Juniper Energy, Keystone Glass,
        Kestrel Aviation, Lakeside Clinics, Larkspur Media, Linden Legal, Lodestar Security,
        Maple Mobile, Marlow Marine, Meadow Organics, Millstone Grain, Nimbus Cloud,
        Northgate Telecom, Oakridge Timber, Onyx Jewellers, Opal Lighting, Orchard Juice,
        Palisade Games, Pinnacle Sports, Quarry Cement, Quill Stationery, Ravenna Shoes,
        Redwood Capital, Riverbend Water, Sapphire Watches, Silverline Coaches, Solstice Solar,
        Sparrow Toys, Sterling Metals, Stonebridge Wines, Summit Outdoors, Tamarind Spices,
        Thistle Knitwear, Trident Boats, Umber Paints, Vantage Consulting, Verdant Gardens,
        Westbrook Pharmacy, Whitecliff Salt, Willow Furnishings, Yarrow Labs, Zephyr Fans"""
    ),
    "products": _listed(
        """alarm clock, armchair, backpack, barbecue, baseball glove, bath towel, bicycle helmet,
        binoculars, blanket, blender, bookshelf, bread knife, briefcase, camping stove, candle,
        cardigan, carpet, chessboard, coffee grinder, corkscrew, curtain, cushion, cutting board,
        desk lamp, dishwasher, doorbell, drill, dumbbell, electric kettle, espresso machine,
        fountain pen, freezer, frying pan, garden hose, guitar, hair dryer, hammer, hammock,
        headphones, heater, inkjet printer, iron, keyboard, ladder, laptop stand, lawn mower,
        lunch box, mattress, microphone, microwave, mirror, monitor, notebook, office chair, pillow,
        power bank, radio, raincoat, record player, rice cooker, roller skates, router, rucksack,
        saucepan, scarf, screwdriver, sewing machine, shower curtain, ski boots, sleeping bag,
        smartwatch, snowboard, soldering iron, speaker, stapler, suitcase, sunglasses, surfboard,
        tablet, teapot, telescope, tennis racket, tent, thermometer, toaster, torch, tripod,
        trumpet, umbrella, vacuum cleaner, violin, waffle iron, wallet, wardrobe, webcam,
        wheelbarrow, whiteboard, wine glass, wok, wristband, yoga mat"""
    ),
    "titles": _listed(
        """Amber Tide, Ashes of Autumn, Autumn Letters, Beneath the Ice, Beyond the Harbour,
        Broken Compass, City of Lanterns, Cold Harvest, Crimson Orchard, Dancing Shadows,
        Distant Thunder, Echo Valley, Empty Theatre, Fading Lights, Falling Petals, First Frost,
        Forgotten Garden, Frozen River, Ghost Station, Glass Mountain, Golden Hour, Hidden Staircase,
        Hollow Bridge, House of Mirrors, Island of Bells, Journey North, Last Lighthouse,
        Little Wolves, Long Winter, Lost Cartographer, Midnight Ferry, Moonlit Road, Morning Train,
        Mountain Song, Night Gardener, Northern Sky, Ocean Hymn, Old Watchmaker, Open Window,
        Paper Birds, Quiet Storm, Rain over Lisbon Road, Red Lantern, Return to Eden, River Stones,
        Saltwater, Scarlet Winter, Second Sunrise, Secret Violin, Seven Keys, Silent Spring Rain,
        Silver Comet, Sleeping Giants, Stolen Summer, Stone Garden, Summer Rain, Sunken Cathedral,
        Tall Grass, The Ninth Wave, Thin Walls, Tower of Salt, Velvet Evening, Voices in the Fog,
        Wandering Moon, White Heron, Wild Geese, Winter Palace, Yellow Umbrella Stand"""
    ),
    "topics": _listed(
        """allergy, apprenticeship, audit, bankruptcy, bonus, brochure, cancellation, carpool,
        catering, charger, chlorine, compensation, compost, copyright, coupon, deadline, deposit,
        diesel, discount, donation, elevator, emergency, evacuation, exhibition, expedition,
        extension, fertiliser, fireworks, firewall, forecast, fundraiser, generator, glacier,
        greenhouse, guarantee, handbook, harvest, holiday, humidity, inflation, inspection,
        insulation, insurance, interview, invitation, jury, kindergarten, landlord, lawsuit,
        leaflet, licence, lottery, luggage, maintenance, marathon, mortgage, newsletter, nutrition,
        orchestra, orientation, overtime, parking, passport, pension, petition, pollution,
        prescription, probation, promotion, quarantine, questionnaire, rebate, recycling, refund,
        rehearsal, renovation, reservation, resignation, retirement, sabbatical, scholarship,
        shipment, sponsorship, strike, subsidy, surcharge, surgery, sustainability, tariff, tender,
        thermostat, tournament, training, tuition, turbine, upgrade, vaccine, visa, volunteer,
        voucher, warranty, workshop"""
    ),
    "folders": _listed(
        """accounts, albums, applications, assignments, auctions, blueprints, bookings, budgets,
        campaigns, catalogue, certificates, circulars, claims, clippings, contacts, contracts,
        courses, cuttings, deliveries, diagrams, dispatches, documents, downloads, drafts, drawings,
        essays, estimates, evidence, exams, expenses, exports, feedback, figures, finance, forms,
        gallery, grants, guides, handouts, imports, inbox, inventory, invoices, journals, kitchen,
        lectures, leases, legal, letters, library, lists, mailing, manuals, maps, marketing,
        measurements, meetings, memos, minutes, newsletters, outbox, papers, payroll, permits,
        photos, policies, portfolio, posters, presentations, projects, proposals, purchases,
        quotes, readings, receipts, recipes, records, references, releases, reports, research,
        returns, reviews, rosters, sales, samples, scans, schedules, shared, shipping, sketches,
        slides, snapshots, statements, suppliers, surveys, syllabus, tasks, taxes, templates,
        tickets, timesheets, transcripts, travel, tutorials, updates, uploads, vendors, warehouse,
        worksheets"""
    ),
    # names of arguments that a tool may ask for beside its own, each of them a number
    "arguments": _listed(
        """access_code, account_number, agent_id, api_version, approval_code, area_code, badge_number,
        batch_number, billing_code, branch_code, buffer_size, call_number, case_number, channel_id,
        checkpoint, client_id, cluster_id, cost_center, customer_number, department_code, desk_number,
        device_id, employee_number, extension_number, floor_number, gateway_id, group_id, host_number,
        incident_id, job_number, key_index, ledger_code, license_number, lock_id, login_code,
        machine_id, member_number, network_id, office_code, operator_id, owner_id, partition_id,
        permit_number, pin_code, pool_id, port_number, priority_level, process_id, profile_id,
        project_code, queue_number, quota_code, rack_number, region_code, release_number,
        request_number, retry_token, revision, route_id, schema_version, seat_number, sector_code,
        security_code, sequence_number, serial_number, server_number, session_number, shard_number,
        shift_code, site_id, slot_number, store_number, system_code, team_number, tenant_id,
        terminal_id, thread_number, ticket_number, trace_id, transaction_id, unit_code, user_number,
        vault_number, volume_id, warehouse_code, window_size, worker_id, workspace_id, zone_code"""
    ),
    # what an argument may be renamed to; "*" stands for its old name
    "renamings": _listed(
        """*_text, input_*, *_value, *_string, the_*, new_*, *_param, raw_*, *_arg, *_field, my_*,
        *_data, full_*, *_content, given_*, *_body, *_input, target_*, *_v2, user_*, *_item,
        request_*, *_entry, main_*, *_spec, exact_*, *_payload, source_*, *_literal, plain_*,
        *_token, current_*, *_name, actual_*, *_expression, wanted_*"""
    ),
}


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
