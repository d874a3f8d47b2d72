"""Tables of true facts for the exact-match tasks. Left out is what is disputed, changing, or has two answers.

Sources of the facts: capitals and people, general reference; elements, IUPAC; ports, the IANA registry and the
programs' own defaults; HTTP status codes, RFC 9110 and the IANA registry; units, their definitions.
"""

from __future__ import annotations

_CAPITALS = """
Afghanistan: Kabul; Albania: Tirana; Algeria: Algiers; Angola: Luanda; Argentina: Buenos Aires; Armenia: Yerevan;
Australia: Canberra; Austria: Vienna; Azerbaijan: Baku; Bahrain: Manama; Bangladesh: Dhaka; Barbados: Bridgetown;
Belarus: Minsk; Belgium: Brussels; Belize: Belmopan; Bhutan: Thimphu; Botswana: Gaborone; Brazil: Brasília;
Bulgaria: Sofia; Burkina Faso: Ouagadougou; Cambodia: Phnom Penh; Cameroon: Yaoundé; Canada: Ottawa; Chile: Santiago;
China: Beijing; Colombia: Bogotá; Croatia: Zagreb; Cuba: Havana; Cyprus: Nicosia; Denmark: Copenhagen; Ecuador: Quito;
Egypt: Cairo; El Salvador: San Salvador; Eritrea: Asmara; Estonia: Tallinn; Ethiopia: Addis Ababa; Fiji: Suva;
Finland: Helsinki; France: Paris; Gabon: Libreville; Germany: Berlin; Ghana: Accra; Greece: Athens; Guinea: Conakry;
Guyana: Georgetown; Haiti: Port-au-Prince; Honduras: Tegucigalpa; Hungary: Budapest; Iceland: Reykjavik;
India: New Delhi; Iran: Tehran; Iraq: Baghdad; Ireland: Dublin; Italy: Rome; Jamaica: Kingston; Japan: Tokyo;
Jordan: Amman; Kenya: Nairobi; Kuwait: Kuwait City; Laos: Vientiane; Latvia: Riga; Lebanon: Beirut; Liberia: Monrovia;
Libya: Tripoli; Lithuania: Vilnius; Madagascar: Antananarivo; Malawi: Lilongwe; Maldives: Malé; Mali: Bamako;
Malta: Valletta; Mauritania: Nouakchott; Mexico: Mexico City; Moldova: Chișinău; Mongolia: Ulaanbaatar;
Montenegro: Podgorica; Morocco: Rabat; Mozambique: Maputo; Myanmar: Naypyidaw; Namibia: Windhoek; Nepal: Kathmandu;
New Zealand: Wellington; Nicaragua: Managua; Niger: Niamey; Nigeria: Abuja; North Macedonia: Skopje; Norway: Oslo;
Oman: Muscat; Pakistan: Islamabad; Panama: Panama City; Papua New Guinea: Port Moresby; Paraguay: Asunción; Peru: Lima;
Poland: Warsaw; Portugal: Lisbon; Qatar: Doha; Romania: Bucharest; Russia: Moscow; Rwanda: Kigali; Samoa: Apia;
Saudi Arabia: Riyadh; Senegal: Dakar; Serbia: Belgrade; Sierra Leone: Freetown; Slovakia: Bratislava;
Slovenia: Ljubljana; Somalia: Mogadishu; South Korea: Seoul; Spain: Madrid; Sudan: Khartoum; Suriname: Paramaribo;
Sweden: Stockholm; Syria: Damascus; Tajikistan: Dushanbe; Thailand: Bangkok; Togo: Lomé; Tonga: Nukuʻalofa;
Tunisia: Tunis; Turkey: Ankara; Turkmenistan: Ashgabat; Uganda: Kampala; Ukraine: Kyiv; Uruguay: Montevideo;
Uzbekistan: Tashkent; Vanuatu: Port Vila; Venezuela: Caracas; Vietnam: Hanoi; Zambia: Lusaka; Zimbabwe: Harare
"""

#: in the order of their atomic numbers, from 1
_ELEMENTS = """
Hydrogen Helium Lithium Beryllium Boron Carbon Nitrogen Oxygen Fluorine Neon Sodium Magnesium Aluminium Silicon
Phosphorus Sulfur Chlorine Argon Potassium Calcium Scandium Titanium Vanadium Chromium Manganese Iron Cobalt Nickel
Copper Zinc Gallium Germanium Arsenic Selenium Bromine Krypton Rubidium Strontium Yttrium Zirconium Niobium Molybdenum
Technetium Ruthenium Rhodium Palladium Silver Cadmium Indium Tin Antimony Tellurium Iodine Xenon Caesium Barium
Lanthanum Cerium Praseodymium Neodymium Promethium Samarium Europium Gadolinium Terbium Dysprosium Holmium Erbium
Thulium Ytterbium Lutetium Hafnium Tantalum Tungsten Rhenium Osmium Iridium Platinum Gold Mercury Thallium Lead Bismuth
Polonium Astatine Radon Francium Radium Actinium Thorium Protactinium Uranium Neptunium Plutonium Americium Curium
Berkelium Californium Einsteinium Fermium Mendelevium Nobelium Lawrencium Rutherfordium Dubnium Seaborgium Bohrium
Hassium Meitnerium Darmstadtium Roentgenium Copernicium Nihonium Flerovium Moscovium Livermorium Tennessine Oganesson
"""

_PORTS = """
Echo: 7; Discard: 9; Daytime: 13; SSH: 22; Telnet: 23; SMTP: 25; WHOIS: 43; DNS: 53; TFTP: 69; Gopher: 70; Finger: 79;
HTTP: 80; Kerberos: 88; POP3: 110; Ident: 113; NNTP: 119; NTP: 123; IMAP: 143; SNMP: 161; BGP: 179; LDAP: 389;
HTTPS: 443; SMB: 445; Modbus: 502; LPD: 515; AFP: 548; RTSP: 554; IPP: 631; LDAPS: 636; rsync: 873; IMAPS: 993;
POP3S: 995; SOCKS: 1080; OpenVPN: 1194; Microsoft SQL Server: 1433; L2TP: 1701; PPTP: 1723; RADIUS authentication: 1812;
MQTT: 1883; NFS: 2049; ZooKeeper: 2181; Squid: 3128; MySQL: 3306; Remote Desktop Protocol: 3389; STUN: 3478;
SIP: 5060; mDNS: 5353; PostgreSQL: 5432; AMQP: 5672; VNC: 5900; CouchDB: 5984; Redis: 6379; Kafka: 9092;
Prometheus: 9090; Elasticsearch: 9200; Git: 9418; Memcached: 11211; Minecraft: 25565; MongoDB: 27017
"""

_HTTP_CODES = """
100: Continue; 101: Switching Protocols; 103: Early Hints; 200: OK; 201: Created; 202: Accepted;
203: Non-Authoritative Information; 204: No Content; 205: Reset Content; 206: Partial Content; 207: Multi-Status;
208: Already Reported; 226: IM Used; 300: Multiple Choices; 301: Moved Permanently; 302: Found; 303: See Other;
304: Not Modified; 305: Use Proxy; 307: Temporary Redirect; 308: Permanent Redirect; 400: Bad Request;
401: Unauthorized; 402: Payment Required; 403: Forbidden; 404: Not Found; 405: Method Not Allowed; 406: Not Acceptable;
407: Proxy Authentication Required; 408: Request Timeout; 409: Conflict; 410: Gone; 411: Length Required;
412: Precondition Failed; 415: Unsupported Media Type; 417: Expectation Failed; 421: Misdirected Request; 423: Locked;
424: Failed Dependency; 425: Too Early; 426: Upgrade Required; 428: Precondition Required; 429: Too Many Requests;
431: Request Header Fields Too Large; 451: Unavailable For Legal Reasons; 500: Internal Server Error;
501: Not Implemented; 502: Bad Gateway; 503: Service Unavailable; 504: Gateway Timeout;
505: HTTP Version Not Supported; 506: Variant Also Negotiates; 507: Insufficient Storage; 508: Loop Detected;
511: Network Authentication Required
"""

_ACRONYMS = """
ACID: Atomicity, Consistency, Isolation, Durability; API: Application Programming Interface;
ASCII: American Standard Code for Information Interchange; BIOS: Basic Input/Output System;
BGP: Border Gateway Protocol;
CAPTCHA: Completely Automated Public Turing test to tell Computers and Humans Apart; CDN: Content Delivery Network;
CLI: Command-Line Interface; CORS: Cross-Origin Resource Sharing; CPU: Central Processing Unit;
CRUD: Create, Read, Update, Delete; CSS: Cascading Style Sheets; CSV: Comma-Separated Values;
DHCP: Dynamic Host Configuration Protocol; DNA: Deoxyribonucleic Acid; DNS: Domain Name System;
DOM: Document Object Model; FAQ: Frequently Asked Questions; FIFO: First In, First Out; FTP: File Transfer Protocol;
GDP: Gross Domestic Product; GIF: Graphics Interchange Format; GPS: Global Positioning System;
GPU: Graphics Processing Unit; GUI: Graphical User Interface; HTML: HyperText Markup Language;
HTTP: Hypertext Transfer Protocol; IDE: Integrated Development Environment; IMAP: Internet Message Access Protocol;
ISBN: International Standard Book Number; ISP: Internet Service Provider; JPEG: Joint Photographic Experts Group;
JSON: JavaScript Object Notation; LAN: Local Area Network; LDAP: Lightweight Directory Access Protocol;
LED: Light-Emitting Diode; LIFO: Last In, First Out; MRI: Magnetic Resonance Imaging;
NASA: National Aeronautics and Space Administration; NATO: North Atlantic Treaty Organization;
NFS: Network File System; NTP: Network Time Protocol; OCR: Optical Character Recognition;
ORM: Object-Relational Mapping; PDF: Portable Document Format; PNG: Portable Network Graphics;
POSIX: Portable Operating System Interface; RAID: Redundant Array of Independent Disks; RAM: Random Access Memory;
REST: Representational State Transfer; RNA: Ribonucleic Acid; ROM: Read-Only Memory; RPC: Remote Procedure Call;
SDK: Software Development Kit; SMTP: Simple Mail Transfer Protocol; SNMP: Simple Network Management Protocol;
SQL: Structured Query Language; SSD: Solid-State Drive; SSH: Secure Shell; SSL: Secure Sockets Layer;
SVG: Scalable Vector Graphics; TCP: Transmission Control Protocol; TLS: Transport Layer Security;
UDP: User Datagram Protocol; UNESCO: United Nations Educational, Scientific and Cultural Organization;
URL: Uniform Resource Locator;
USB: Universal Serial Bus; VPN: Virtual Private Network; WAN: Wide Area Network; WHO: World Health Organization;
WYSIWYG: What You See Is What You Get; XML: Extensible Markup Language; YAML: YAML Ain't Markup Language
"""

#: families of units that are whole multiples of their first: (one, many, how many of the first)
UNITS: tuple[tuple[tuple[str, str, int], ...], ...] = (
    (("millimetre", "millimetres", 1), ("centimetre", "centimetres", 10), ("metre", "metres", 1000),
     ("kilometre", "kilometres", 1_000_000)),
    (("inch", "inches", 1), ("foot", "feet", 12), ("yard", "yards", 36), ("furlong", "furlongs", 7920),
     ("mile", "miles", 63_360)),
    (("milligram", "milligrams", 1), ("gram", "grams", 1000), ("kilogram", "kilograms", 1_000_000)),
    (("ounce", "ounces", 1), ("pound", "pounds", 16), ("stone", "stones", 224)),
    (("second", "seconds", 1), ("minute", "minutes", 60), ("hour", "hours", 3600), ("day", "days", 86_400),
     ("week", "weeks", 604_800)),
    (("US teaspoon", "US teaspoons", 1), ("US tablespoon", "US tablespoons", 3), ("US cup", "US cups", 48),
     ("US pint", "US pints", 96), ("US quart", "US quarts", 192), ("US gallon", "US gallons", 768)),
    (("bit", "bits", 1), ("byte", "bytes", 8), ("kibibyte", "kibibytes", 8 * 1024),
     ("mebibyte", "mebibytes", 8 * 1024**2)),
    (("arcsecond", "arcseconds", 1), ("arcminute", "arcminutes", 60), ("degree of arc", "degrees of arc", 3600)),
)  # fmt: skip

#: Wikidata id, name, year of birth, year of death, field
_PEOPLE = """
Q937 | Albert Einstein | 1879 | 1955 | physics
Q7186 | Marie Curie | 1867 | 1934 | physics and chemistry
Q1035 | Charles Darwin | 1809 | 1882 | biology
Q307 | Galileo Galilei | 1564 | 1642 | astronomy
Q762 | Leonardo da Vinci | 1452 | 1519 | painting
Q692 | William Shakespeare | 1564 | 1616 | drama
Q7251 | Alan Turing | 1912 | 1954 | computer science
Q9036 | Nikola Tesla | 1856 | 1943 | electrical engineering
Q1339 | Johann Sebastian Bach | 1685 | 1750 | music
Q254 | Wolfgang Amadeus Mozart | 1756 | 1791 | music
Q255 | Ludwig van Beethoven | 1770 | 1827 | music
Q5582 | Vincent van Gogh | 1853 | 1890 | painting
Q5593 | Pablo Picasso | 1881 | 1973 | painting
Q7259 | Ada Lovelace | 1815 | 1852 | mathematics
Q39246 | Richard Feynman | 1918 | 1988 | physics
Q17714 | Stephen Hawking | 1942 | 2018 | physics
Q8743 | Thomas Edison | 1847 | 1931 | invention
Q535 | Victor Hugo | 1802 | 1885 | literature
Q1001 | Mahatma Gandhi | 1869 | 1948 | politics
Q8023 | Nelson Mandela | 1918 | 2013 | politics
Q91 | Abraham Lincoln | 1809 | 1865 | politics
Q23 | George Washington | 1732 | 1799 | politics
Q517 | Napoleon Bonaparte | 1769 | 1821 | politics
Q9312 | Immanuel Kant | 1724 | 1804 | philosophy
Q9191 | René Descartes | 1596 | 1650 | philosophy
Q9068 | Voltaire | 1694 | 1778 | philosophy
Q5879 | Johann Wolfgang von Goethe | 1749 | 1832 | literature
Q7243 | Leo Tolstoy | 1828 | 1910 | literature
Q991 | Fyodor Dostoevsky | 1821 | 1881 | literature
Q5685 | Anton Chekhov | 1860 | 1904 | literature
Q36322 | Jane Austen | 1775 | 1817 | literature
Q5686 | Charles Dickens | 1812 | 1870 | literature
Q9215 | Sigmund Freud | 1856 | 1939 | psychology
Q529 | Louis Pasteur | 1822 | 1895 | microbiology
Q7604 | Leonhard Euler | 1707 | 1783 | mathematics
Q8963 | Johannes Kepler | 1571 | 1630 | astronomy
Q619 | Nicolaus Copernicus | 1473 | 1543 | astronomy
Q5598 | Rembrandt | 1606 | 1669 | painting
Q5592 | Michelangelo | 1475 | 1564 | sculpture
Q9061 | Karl Marx | 1818 | 1883 | philosophy
"""


def _table(text: str) -> dict[str, str]:
    entries = (entry.partition(":") for entry in " ".join(text.split()).split(";"))
    return {key.strip(): value.strip() for key, _, value in entries}


CAPITALS = _table(_CAPITALS)
ELEMENTS = _ELEMENTS.split()
PORTS = _table(_PORTS)
HTTP_CODES = _table(_HTTP_CODES)
ACRONYMS = _table(_ACRONYMS)
PEOPLE = [[part.strip() for part in line.split("|")] for line in _PEOPLE.strip().splitlines()]
