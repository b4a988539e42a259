"""What people write when they mean no code: two hundred sentences, with the abbreviations that look most like one."""

from __future__ import annotations

SENTENCES = tuple(
    """
Can you convert the PDF to HTML for me?
The DVD player and the TV need a new HDMI cable.
Dr. Smith and Mrs. Brown met Mr. Black at St. Paul's.
Pls fwd this to the HR dept, thx.
My PC has 16 GB of RAM and a 512 GB SSD.
Is it MB or GB, and how many KB are in one?
How many sq ft are in a sq km?
The speed limit is 30 mph, that is about 48 km per hour.
Hmm, I am not sure about that.
Hmm... pff, whatever.
Brr, it is cold today!
Shh, the baby sleeps.
Psst, have you heard about the party?
Grr, the train is late again.
TL;DR: BTW, the VPN works again.
FYI, the CSV has a BOM.
What is the difference between TCP and UDP?
Does the API speak JSON or XML?
My CSS breaks in the HTML preview.
How do I write an SQL query with a LEFT JOIN?
The HTTP server answers with a 404.
Why does HTTPS need a TLS certificate?
PHP, SQL and CSS are what I know best.
I need a JPG, a PNG and a GIF of the logo.
Can I open an MP3 in VLC?
She has a PhD in CS and an MSc in maths.
He works for the BBC, she for CNN.
The NFL game starts at 8 pm ET.
Our NBA team plays the LA side tonight.
We fly from JFK to LAX on Mon.
The DNS entry points to the wrong IP.
Use SSH with a key, not a password.
The GPS lost us in the Bronx.
My GP sent me for an MRI and a CT scan.
The lab wants CBC, TSH and LDL values.
Take 5 ml three times a day, p.r.n.
Mix 200 g of flour with 3 tbsp of sugar.
Add 1 tsp of salt, 2 cups of milk, etc.
Bake at 180 C, or 350 F, for 40 min.
The recipe is by J. K. Rowling's neighbour.
J. R. R. Tolkien wrote it, not C. S. Lewis.
See p. 12, pp. 30-34 and fig. 7.
Cf. the appendix, esp. sec. 3.
e.g. this one, i.e. the red one, viz. mine.
The meeting is at 10 am CET, 4 am EST.
Jan, Feb and Mar were wet, Apr was dry.
Mon, Wed and Fri are fine, Tue and Thu are not.
RSVP by Fri, plz.
ASAP means as soon as possible, FWIW.
BRB, my tea is ready.
TBH I never liked it, IMHO.
LOL, that was great, ROFL.
OMG, WTF was that?
Thx, np, ttyl!
My CV is attached as a PDF.
The CEO, the CFO and the CTO agree.
HR and PR share one office.
The R&D budget was cut by 20%.
The MP asked the PM about the NHS.
The UN, the EU and NATO met in NYC.
The USB port is broken, try the LAN.
The LCD flickers, the LED does not.
My wifi uses WPA2, not WEP.
The CPU is fine, the GPU is hot.
Install the RPM, or the DEB on Debian.
Mount it as ext4, NTFS or FAT32.
Run the cmd with sudo, in bash or zsh.
git pull, git rebase, git push.
What does chmod 755 do?
Run grep -r in the src folder.
Is nginx faster than Apache?
The cron job runs at 3 am.
rsync copies what scp cannot.
My regex is [a-z]+ and it fails.
How do I exit vim?
Write a for loop in Python 3.12, pls.
The JS bundle has 300 KB, gzipped 90 KB.
npm install fails with an ERR.
The JVM needs more heap.
XML, XSD and XSLT are a family.
Is SVG better than PNG for logos?
The FTP server is down, SFTP works.
The SMTP relay rejects my mail.
IMAP keeps mail on the server, POP3 does not.
The VM has 4 vCPUs.
Docker on ARM, not on x86.
I owe you 20 USD, or 18 EUR.
1 GBP is about 1.27 USD.
The VAT is 19%, the net price 100.
My IBAN is on the invoice.
The ATM ate my card and my PIN was right.
Is the IRS the same as HMRC?
The LTD was sold to an LLC.
Fill in form W-2, not 1099.
My flat is 60 sq m, rent incl.
No pets, no smokers, refs req.
3 bdrm, 2 bth, nr stn.
Turn left at Rd 5, then N on Hwy 1.
The bldg is at 12 W 4th St.
Apt 7B, c/o Mrs Lynch.
Send it to P.O. Box 12, NY.
The BMW passed the VW and the KTM.
The MPG of my SUV is awful.
My HP has 90 hp.
The BPM of that song is 128.
DJ and MC, what a night.
The LP came out before the CD.
R.E.M. and U2 were on the radio.
AC/DC played TNT, of course.
The TV show is on HBO and on Netflix.
My PS5 and the Xbox share one HDMI port.
The RPG is better than the FPS.
GG, well played!
The NPC in the MMO is broken.
J, K and L are letters.
X, Y and Z are the axes.
x, y, z = 1, 2, 3
Let f(x) = x^2 and g(t) = 3t.
The matrix is n by m, so k < n.
sin, cos and tan repeat.
H2O and CO2 are molecules, NaCl is salt.
The pH of the water is 7.
DNA and RNA are not the same.
The mRNA codes for a protein.
TNT, RDX and so on explode.
ZnS, CdS and PbS are sulfides.
The CNC mill needs a new bit.
The PLC speaks Modbus.
The PCB has 4 layers.
My NFC tag does not work.
Rhythm and myths are words without vowels.
Why, my, by, cry, dry, fly.
Crwth is a Welsh word, cwm too.
Nth, 5th, 6th, 7th and so on.
The 1st, the 2nd and the 3rd.
24/7, 9 to 5, w/o a break.
w/ milk, w/o sugar, thx
b/c I said so
Tmrw at the gym?
Pls call me tmrw, brb.
Msg me l8r.
Cya, gn!
U r so kind, ty.
y tho
k, np
Mhm, sure.
Tsk tsk, so late again.
Zzz, I was asleep.
Pfft, that is easy.
Ahem, my turn.
Ugh, Mondays.
Hrmph, said the cat.
Ssh is a sound, and a program.
The Prof. of the Dept. of Phys. is ill.
The Rev. Dr. M. L. King Jr. spoke.
Lt. Col. J. Parks, Sgt. B. Hart and Pvt. T. Wm. Cross.
Gov. Brown and Sen. Clark, D-NY, voted.
Messrs. Hart, Marx & Co. sell suits.
Bros. Grimm, vol. 3, ch. 5.
Smth. is wrong w. the hdr.
The hdr of the tbl is bld.
tmp, src, lib and bin are folders.
str, int, dbl and bln are types.
The var is called cnt, the ptr is nxt.
Use ctrl-c, not cmd-c.
Press Ctrl+Shift+T in the tab.
Ctrl, Alt, Del.
F5, then F12.
The https link is broken.
www.example.com has no title.
Mail me at b.k@example.org.
See RFC 3339 and RFC 2119.
ISO 8601 has the date first.
The ETA is 5 pm, the ETD 7 pm.
GMT, UTC and BST differ.
The BBQ is at ours, BYOB.
DIY, RTFM and KISS.
Q&A at the end, pls.
The PTA meets on Thurs.
My SSN and my DL are in the safe.
The FBI, the CIA and the NSA.
The KGB files, the Stasi files.
NYPD and LAPD on TV.
The DMV closes at 5.
The CDC and the WHO agree.
HIV and TB are treated here.
BP 120 over 80, pulse 70 bpm.
BMI 22, wt 70 kg, ht 178 cm.
The pkg has 12 pcs, 3 kg net.
qty 3, amt 20, bal 0
Acct. no. and sort code, please.
The mgr and the asst mgr are out.
The dept hd is on lv.
Wkly rpt attd.
Rgds, B.
Kind rgds, Mrs T. Marsh
Yrs truly, J. B.
P.S. Bring milk.
PS: bring bread, too.
P.P.S. And jam.
""".strip().splitlines()
)
