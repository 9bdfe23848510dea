"""Edge-case texts for which two implementations of a tokenizer are most likely to give different ids.

The texts are used to verify fast encoders, converted vocabularies and exported models. The texts cover Unicode classes
and versions, long runs of one character, line endings, contractions, digits, combining marks and names of special
tokens. All texts can be encoded as UTF-8.
"""

from __future__ import annotations

EDGE_CASES: dict[str, str] = {
    # Empty and very short texts.
    "empty": "",
    "space": " ",
    "newline": "\n",
    "padded": "   leading and trailing   ",
    # English text with apostrophes, because split patterns have special rules for them.
    "sentence": "The quick brown fox jumps over the lazy dog.",
    "capitals": "HTTPServer iPhone eBay McDonald's NASA's XMLHttpRequest camelCase snake_case SCREAMING_CASE",
    "contractions": "It's they're we've I'd you'll he'm can't o'clock 'tis rock'n'roll",
    "uppercase contractions": "IT'S THEY'RE WE'VE I'D YOU'LL CAN'T we'Ve they'Re i'Ll",
    "apostrophes": "''quoted'' 'single' I’m it’s ‘typographic’ 'sss 'ta 'd' ''re '' ' s",
    "punctuation": 'Well... what?! (No—really); "quoted", [bracketed] {braced} <angled> & so/on… #tag @name ~ ^ ` | \\',
    "symbols": "a+b=c x<y 5>=3 $9.99 €10 £1 ¥100 50% ±3 × ÷ √2 ∑ ∞ → ⇒ ∀x∈ℝ © ® ™ § ¶ † • ◊",
    # Numbers.
    "digits": "0 1 12 123 1234 12345 123456 1234567 12345678 123456789 1234567890",
    "numbers": "3.14159 1,000,000 1e-9 0x1F 2026-11-25 12:34:56 +49 30 123456 v1.2.3 1st 2nd 10km 5G a1b22c333",
    "other digits": "½ ¾ Ⅷ ⅻ ² ³ ₁₂ ① ⑳ 𝟘𝟙𝟚 ٣٤٥ ۱۲۳ १२३४ ๑๒๓ 一二三四 〇",
    # White space and line endings.
    "spaces": "a  b   c    d     e      f\tg\t\th \t i",
    "line ends": "a\nb\n\nc\n\n\nd\r\ne\r\n\r\nf\rg\r\rh \n i\n j\t\nk  \n\n  l\n ",
    "unusual spaces": "a\u00a0b\u2003c\u2009d\u3000e\u202ff\u205fg\u1680h\x0bi\x0cj\u0085k\u2028l\u2029m",
    "invisible": "zero\u200bwidth\u200cnon\u200djoiner\u2060word\ufeffmark soft\u00adhyphen \u200eltr\u200frtl",
    "spaces before punctuation": "what ? yes ! a , b . c : d ; e ' f \" g ( h ) 's 't",
    "trailing newline": "The end.\n",
    "trailing newlines": "The end. \n\n\n",
    # Scripts, mostly with Article 1 of the Universal Declaration of Human Rights.
    "German": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Straße, Größenänderung, GROẞ",
    "French": "Tous les êtres humains naissent libres et égaux ; l’œuvre « d’où ça vient » coûte 3 €.",
    "Spanish": "¿Qué? ¡Todos los seres humanos nacen libres e iguales en dignidad y derechos! El niño, señor.",
    "Polish and Czech": "Wszyscy ludzie rodzą się wolni. Zażółć gęślą jaźń. Příliš žluťoučký kůň úpěl ďábelské ódy.",
    "Turkish": "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar. İstanbul'da ışık IĞDIR'ın",
    "Vietnamese": "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền lợi.",
    "Vietnamese, decomposed": "Ta\u0302\u0301t ca\u0309 mo\u0323i ngu\u031bo\u031b\u0300i sinh ra",
    "Swahili and Yoruba": "Watu wote wamezaliwa huru. Gbogbo ènìyàn ni a bí ní òmìnira; iyì àti ẹ̀tọ́ kọ̀ọ̀kan sì dọ́gba.",
    "Russian": "Все люди рождаются свободными и равными в своём достоинстве и правах. ЁЛКА №5 «да» — нет",
    "Ukrainian and Bulgarian": "Всі люди народжуються вільними; об'єкт, ґанок, їжа. Всички хора се раждат свободни.",
    "Greek": "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι. ΆΝΘΡΩΠΟΣ ὁ ἄνθρωπος τοῦ ἀνθρώπου; σοφός",
    "Armenian and Georgian": "Բոլոր մարդիկ ծնվում են ազատ: ყველა ადამიანი იბადება თავისუფალი და თანასწორი. ᲥᲐᲠᲗᲣᲚᲘ",
    "Hebrew": "כל בני אדם נולדו בני חורין ושווים בערכם. בְּרֵאשִׁית בָּרָא אֱלֹהִים 'צ'יפס'",
    "Arabic": "يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق، السَّلامُ عَلَيْكُمْ ١٩٤٨م ﷺ",
    "Persian and Urdu": "تمام افراد بشر آزاد به دنیا می‌آیند. تمام انسان آزاد اور حقوق و عزت کے اعتبار سے برابر ہیں۔",
    "Hindi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता प्राप्त है। क्षत्रिय १९४८",
    "Bengali and Tamil": "সমস্ত মানুষ স্বাধীনভাবে জন্মগ্রহণ করে। மனிதப் பிறவியினர் சகலரும் சுதந்திரமாகவே பிறக்கின்றனர்",
    "Telugu, Kannada, Malayalam": "ప్రతిపత్తిస్వత్వముల ಎಲ್ಲಾ ಮಾನವರೂ ಸ್ವತಂತ್ರರಾಗಿ മനുഷ്യരെല്ലാവരും തുല്യാവകാശങ്ങളോടും",
    "Thai and Lao": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกัน ๒๔๙๑ ມະນຸດເກີດມາມີສິດເສລີພາບ",
    "Khmer, Burmese, Tibetan": "មនុស្សទាំងអស់ កើតមកមានសេរីភាព လူတိုင်းသည် တူညီလွတ်လပ်သော འགྲོ་བ་མིའི་རིགས་རྒྱུད་",
    "Sinhala and Amharic": "සියලු මනුෂ්‍යයෝ නිදහස්ව උපත ලබා ඇත. የሰው ልጅ ሁሉ ሲወለድ ነጻና በክብርና በመብትም እኩልነት ያለው ነው።",
    "Chinese": "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心！「繁體中文」共3個，２０２６年？",
    "Japanese": "すべての人間は、生まれながらにして自由であり、コンピューターでﾊﾝｶｸも使う。『東京』２３区々",
    "Korean": "모든 인간은 태어날 때부터 자유로우며 존엄하다. ㅋㅋㅋ 한글 자모 ᄒ\u1161\u11ab",
    "mixed scripts": "我想在apple工作1314151天～ Это is mixé 한국어text123中文abcДвеあいう's",
    # Combining marks, emoji, and characters outside the Basic Multilingual Plane.
    "combining marks": "cafe\u0301 naïve nai\u0308ve A\u030a\u0323 Z\u0351\u036b\u0343\u032a\u0302 x\u20d7",
    "isolated marks": "\u0301alone a\u0301\u0301\u0301\u0301 \u0301 1\u0301 .\u0301",
    "emoji": "😀😂🔥 👍🏽 ❤️ ♥️ ☃︎ 1️⃣ 🇩🇪🇫🇷 ok🙂 🙂ok a😶b",
    "emoji sequences": "👩‍👩‍👧‍👦 🏳️‍🌈 🧑🏿‍🚀 😶‍🌫️ 🐻‍❄️ 🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f 👁️‍🗨️",
    "beyond the basic plane": "𝒻𝓊𝓃 𝔄𝔅 𝕏 𐍈𐌰 𓀀𓁐 𒀀 𠜎𠮷 𝄞 🀄 \U000e0041 \U0010fffd",
    "private and unassigned": "\ue000\uf8ff \ufffd \ufffe \U0001fffe \u0378 \U000323b0",
    "controls": "".join(map(chr, range(0x20))) + "\x7f" + "".join(map(chr, range(0x80, 0xA0))),
    "Latin": "".join(map(chr, range(0x20, 0x250))),
    # Code, markup and addresses.
    "Python": "def f(x: int) -> int:\n    '''Doc.'''\n    return x**2  # comment\n\n\nclass A(B):\n\tpass\n",
    "C": '#include <stdio.h>\nint main(void) {\n\tfor (int i=0;i<10;++i) printf("%d\\n", a[i]&0xFF);\n}\n',
    "JSON and SQL": '{"key": [1, 2.5, null, true], "ü": "\\u00fc"}\nSELECT * FROM t WHERE a=\'b\' AND c<>0;--\n',
    "HTML": '<!DOCTYPE html>\n<p class="x">a&nbsp;b</p><br/>\n<script>if(a&&b||!c){d+=1}</script>',
    "TeX": "$\\int_0^\\infty e^{-x^2}\\,dx = \\frac{\\sqrt{\\pi}}{2}$ \\begin{align} a &= b \\\\ \\end{align}",
    "addresses": "https://example.org/a/b?c=d&e=%20f#g a.b+c@example.co.uk C:\\Users\\x /usr/lib 192.168.0.1 ::1",
    "rules": "------======= ***** ##### ~~~~~~ ______ ......!!!!!!??????``````\"\"\"\"'''''' //// \\\\\\\\ <<<>>>",
    "shell": "$ ls -la | grep '^d' >> out.txt 2>&1 && echo \"$HOME\" # done\r\n",
    # Text that looks like special tokens.
    "ChatML in text": "<|endoftext|><|pad|> <|im_start|>user\n<|im_end|> <|reserved_0|>",
    "other special lookalikes": "<s> </s> <unk> <pad> [INST] [/INST] <<SYS>> <bos><eos> <0x0A>",
    "newer special lookalikes": "<start_of_turn>model\n<end_of_turn> <|start_header_id|>user<|eot_id|> [PAD1]",
    "block characters": "a▁b ▁▁c Ġd Ċe âĢĻ ▁ ĠĠ",
    # Long runs of the same characters.
    "long spaces": " " * 999 + "x" + " " * 1000,
    "long newlines": "\n" * 999 + " \n" * 500 + "\t" * 999,
    "long letters": "a" * 4000 + "ab" * 2000 + "é" * 2000 + "中" * 2000,
    "long others": "=" * 4000 + "9" * 4000 + "🙂" * 300 + "-=" * 300 + "'" * 200,
}
